"""Many runs at once: seeds of one configuration, arms of a comparison, sweeps."""
