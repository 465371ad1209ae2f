"""The guards of the test suite itself: each stops the bad case and passes the good one."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch  # noqa: F401  - loaded once here, so that each small run below finds it loaded

from real_data import find

pytest_plugins = ["pytester"]
GUARD = Path(__file__).parents[1] / "conftest.py"

DRAWS = {
    "torch": "torch.rand(1)",
    "numpy": "numpy.random.rand()",
    "random": "random.random()",
}


def run(pytester: pytest.Pytester, body: str) -> pytest.RunResult:
    """Run one small test file under the guard."""
    pytester.makeconftest(GUARD.read_text(encoding="utf-8"))
    pytester.makeini("[pytest]\nmarkers =\n    global_rng: allowed\n")
    pytester.makepyfile(f"import random\n\nimport numpy\nimport pytest\nimport torch\n\n{body}")
    return pytester.runpytest_inprocess("-p", "no:cacheprovider")


def test_each_global_generator_is_guarded(pytester: pytest.Pytester) -> None:
    body = "".join(f"def test_{name}():\n    {draw}\n\n" for name, draw in DRAWS.items())
    result = run(pytester, body)
    result.assert_outcomes(failed=3)
    for name in DRAWS:
        result.stdout.fnmatch_lines([f"*test_{name} advanced the global generator of {name} *"])


def test_a_fixture_is_guarded_too(pytester: pytest.Pytester) -> None:
    body = "@pytest.fixture\ndef x():\n    return torch.rand(1)\n\ndef test_x(x):\n    pass\n"
    result = run(pytester, body)
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(["*advanced the global generator of torch during set-up*"])


def test_explicit_generators_and_marked_tests_pass(pytester: pytest.Pytester) -> None:
    body = (
        "def test_good():\n"
        "    torch.rand(1, generator=torch.Generator().manual_seed(0))\n"
        "    numpy.random.default_rng(0).random()\n"
        "    random.Random(0).random()\n\n"
        "@pytest.mark.global_rng\ndef test_marked():\n    torch.rand(1)\n"
    )
    run(pytester, body).assert_outcomes(passed=2)


def test_generators_are_put_back_after_a_marked_test(pytester: pytest.Pytester) -> None:
    body = (
        "STATE = random.getstate()\n\n"
        "@pytest.mark.global_rng\ndef test_draws():\n    random.random()\n\n"
        "def test_sees_nothing_of_it():\n    assert random.getstate() == STATE\n"
    )
    run(pytester, body).assert_outcomes(passed=2)


def test_real_data_is_found(tmp_path: Path) -> None:
    (tmp_path / "mnist").mkdir()
    assert find("mnist", str(tmp_path)) == tmp_path / "mnist"


@pytest.mark.parametrize("folder", [None, "", "nowhere"])
def test_absent_real_data_skips_with_the_reason(folder: str | None) -> None:
    with pytest.raises(pytest.skip.Exception, match=r"needs mnist: .*EVENLOOP_TEST_DATA"):
        find("mnist", folder)
