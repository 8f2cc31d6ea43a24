"""``tools/class_names.py`` reports two public classes that have the same name, unless its list allows the name.

It also reports a name in the list that no longer belongs to two classes.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

TOOL = Path(__file__).parents[4] / "tools" / "class_names.py"


@pytest.mark.parametrize(
    ("second", "twins", "words"),
    [
        ("class Part:\n    pass\n", "", "class Part is defined in"),
        ("class Part:\n    pass\n", "Part", ""),
        ("class _Part:\n    pass\n", "", ""),
        ("class Piece:\n    pass\n", "Part", "Part is one class now"),
    ],
)
def test_a_public_class_has_a_name_of_its_own(tmp_path: Path, second: str, twins: str, words: str) -> None:
    (tmp_path / "a.py").write_text("class Part:\n    pass\n")
    (tmp_path / "b.py").write_text(second)
    script = (
        "from pathlib import Path; from class_names import problems, public_classes; "
        f"print(*problems(public_classes(Path({str(tmp_path)!r}).glob('*.py')), {twins.split()}))"
    )
    result = subprocess.run(
        [sys.executable, "-c", script], cwd=TOOL.parent, capture_output=True, text=True, check=True
    )
    assert words in result.stdout
    assert bool(words) == bool(result.stdout.strip())
