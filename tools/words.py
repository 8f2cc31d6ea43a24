"""Finds words and names that this project avoids, and says what to write instead.

``python tools/words.py [PATH …]`` lists each use of them below the paths (by default in the whole tree). The exit code
is 1 if there are any. In a Python file, the comments and strings are prose, and the identifiers are names. A name with
underscores, such as ``going_on``, is also checked as prose. Any other text file is prose as a whole. Code between
backticks is skipped.
The lists find the most common cases only; ``CONTRIBUTING.md`` has the rule.
"""

from __future__ import annotations

import io
import re
import subprocess
import sys
import tokenize
from collections.abc import Iterator
from pathlib import Path

PROSE = {
    r"anew": "again, or a new …",
    r"mend(s|ed|ing)?": "fix",
    r"heed(s|ed|ing)?": "follow, obey",
    r"hand(s|ed|ing)? (it|them|one|tasks?|its task|their tasks?|the task) back": "release",
    r"hand(s|ed|ing)? back": "release",
    r"hand-backs?": "release",
    r"hand(s|ed|ing)? (it |them |one |tasks? |a task |the task )?in(?! hand)": "submit",
    r"is told|are told|was told|were told|be told|been told": "sees, receives, is shown; or name who reports it",
    r"told of|tells of": "reported, known",
    r"heard of|is heard|was heard|hears? of": "received, known",
    r"of ours|of theirs|of its own(?= accord)": "our …, their …",
    r"whoever": "anyone who, or name them",
    r"wherefrom|whereto|wherewith|thereof|thereby|hitherto|henceforth|forthwith": "plain words",
    r"so (many|long|much|often|few|soon) as": "as … as",
    r"goes on|go on|went on|going on": "continues",
    r"meanwhile": "while …, during …",
    r"for want of": "because … is missing",
    r"puts? away|put away": "remove, stop",
    r"befalls?|befell": "happens to",
    r"for ever": "forever",
    r"nobody asks": "say what is missing",
    r"what is there": "say what exists",
    r"work(s|ed|ing)? off": "process",
    r"look(s|ed|ing)? after": "supervise, handle, or say what it does",
    r"(is|are|be) to blame": "say what the cause is",
    r"what (has|have) come": "say what has arrived",
    r"(cost|serve|work)s? nobody": "say which client or process",
    r"the lab": "the fault tests",
}
"""Words and phrases → what to write instead."""

NAMES = {
    "one": "say what it is: task, group, row, item",
    "aboard": "batch",
    "hear": "add_audio, receive",
    "look_again_s": "poll_s, recheck_s",
    "Alone|Crew|Means|Outside|Sight": "SingleRank, ControlGroup, LeaderDeps, RankDeps, HeartbeatSnapshot",
    "Door|Lane|Board": "say what it does: Listener, Bulkhead, RendezvousStore, FastPath",
    "Findings|Shown|Together|Heard|Moment": "PlanInputs, Json, SubmitBatching, WatchSink, ScalingContext",
    "_?MOST|UNDER_WAY|_?PATIENCE(_S)?|TOLD_S|LOOK_S": "MAX_…, …_TIMEOUT_S, …_TTL_S, CHECK_S",
}
"""Identifiers → what to write instead."""

NAME_PARTS = {
    "told": "say what it holds: reported, report, config, observations",
    "heard": "say what it holds: received, message, response",
    "said": "say what it holds: message, output, line",
    "asked": "say what it holds: requested, sent_at, request",
    "going": "stopping (and let conditions read the right way round)",
    "anew": "again, fresh",
    "olds": "outgoing",
    "mend|mends|mended": "fix",
    "mourn|mourns": "record_death",
    "crew|keeper|pulse|rig|bell|bells": "control_group, lease_renewer, heartbeat, cluster, wakeup",
    "finals|rivals|troubles": "final_records, competitors, failures",
}
"""Parts of identifiers, between underscores or capitals → what to write instead."""

VARIABLES = {"of": "say what it is; a method may have this name, as in Endpoint.of(settings)"}
"""Identifiers that are allowed after a dot or ``def`` only → what to write instead."""

ROOT = Path(__file__).resolve().parent.parent
TEXT = (".md", ".txt", ".Dockerfile", ".tpl", ".yaml", ".yml", ".toml", ".sh", ".html", ".js", ".c")
LEFT_OUT = (
    "LICENSE",
    "docs/figures/",
    "docs/openapi.json",
    "tools/words.py",
    "/tiny/model/",
    "requirements.lock",
)
NAMED = ("Makefile", "Dockerfile", "ray-wrapper", "run", "steps")
TEXT_TOKENS = {tokenize.STRING, getattr(tokenize, "FSTRING_MIDDLE", tokenize.STRING)}
"""From Python 3.12 on, the text of an f-string has its own type of token."""
_WORDS = "|".join(f"(?P<w{i}>{words})" for i, words in enumerate(PROSE)).replace(" ", r"\s+")
_PROSE = re.compile(rf"(?<![\w-])(?:{_WORDS})(?![\w-])", re.IGNORECASE)
_REPLACEMENTS = list(PROSE.values())
_PART = re.compile(r"[a-z0-9]+|[A-Z]+(?![a-z])|[A-Z][a-z0-9]*")
_SKIPPED = re.compile(r"```.*?```|`[^`\n]*`|^[ \t]*(?:#+|--+|//)", re.DOTALL | re.MULTILINE)
"""Code, and the marks of comments. Blanking the marks lets a phrase continue on the next line of a comment."""


def _blank(match: re.Match[str]) -> str:
    """Spaces instead of the match. Its line breaks stay, so that lines keep their numbers."""
    return re.sub(r"[^\n]", " ", match[0])


def in_prose(text: str, first_line: int = 1) -> Iterator[tuple[int, str, str]]:
    """Each use: its line, the words as written, and what to write instead."""
    for match in _PROSE.finditer(_SKIPPED.sub(_blank, text)):
        index = next(i for i in range(len(_REPLACEMENTS)) if match[f"w{i}"] is not None)
        yield first_line + text.count("\n", 0, match.start()), match[0], _REPLACEMENTS[index]


def in_name(name: str) -> Iterator[str]:
    """What to write instead of an identifier, or instead of a part of it."""
    parts = [part.lower() for part in _PART.findall(name)]
    yield from (instead for names, instead in NAMES.items() if re.fullmatch(names, name))
    for names, instead in NAME_PARTS.items():
        yield from (instead for part in parts if re.fullmatch(names, part))


def in_lua(source: str) -> Iterator[tuple[int, str, str]]:
    """Each use in the comments, names and keys of a Lua script, as :func:`in_prose` returns it."""
    yield from in_prose(source)
    for number, line in enumerate(source.splitlines(), 1):
        for match in re.finditer(r"\w+", line.partition("--")[0]):
            yield from ((number, match[0], instead) for instead in in_name(match[0]))


def in_python(source: str) -> Iterator[tuple[int, str, str]]:
    """Each use in the comments, strings and names of a Python module, as :func:`in_prose` returns it."""
    comment: list[str] = []
    next_line = 0
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        continues = token.type == tokenize.COMMENT and token.start[0] == next_line
        if comment and not continues and token.type != tokenize.NL:
            yield from in_prose("\n".join(comment), next_line - len(comment))
            comment = []
        if token.type == tokenize.COMMENT:
            comment.append(token.string)
            next_line = token.start[0] + 1
        elif token.type in TEXT_TOKENS:
            yield from in_prose(token.string, token.start[0])
        elif token.type == tokenize.NAME:
            line, before = token.start[0], token.line[: token.start[1]].rstrip()
            yield from ((line, token.string, instead) for instead in in_name(token.string))
            if token.string in VARIABLES and not before.endswith((".", "def")):
                yield line, token.string, VARIABLES[token.string]
            if "_" in token.string:
                yield from in_prose(token.string.replace("_", " ").strip(), line)


def listed(paths: list[str]) -> Iterator[Path]:
    """The files below ``paths`` that git tracks or would add. A path outside the repository is returned as it is.

    :raises SystemExit: if a path does not exist.
    """
    found = [Path(path).resolve() for path in paths]
    if missing := [str(path) for path in found if not path.exists()]:
        raise SystemExit(f"tools/words.py: no such file or folder: {', '.join(missing)}")
    inside = [path for path in found if path.is_relative_to(ROOT)]
    yield from (path for path in found if path not in inside)
    if inside:
        command = ["git", "ls-files", "-co", "--exclude-standard", "--", *inside]
        output = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
        yield from (ROOT / name for name in sorted(set(output.splitlines())))


def uses(paths: list[str]) -> Iterator[str]:
    """Every use below ``paths``, as lines ``file:line: "…" → …``."""
    for path in listed(paths):
        name = str(path.relative_to(ROOT) if path.is_relative_to(ROOT) else path)
        if not path.is_file() or any(part in name for part in LEFT_OUT):
            continue
        if name.endswith(".py"):
            found = in_python(path.read_text(encoding="utf-8"))
        elif name.endswith(".lua"):
            found = in_lua(path.read_text(encoding="utf-8"))
        elif name.endswith(TEXT) or path.name in NAMED:
            found = in_prose(path.read_text(encoding="utf-8"))
        else:
            continue
        for line, written, instead in found:
            yield f'{name}:{line}: "{" ".join(written.split())}" → {instead}'


def main() -> int:
    """Print every use. :returns: 1 if there are any."""
    found = list(uses(sys.argv[1:] or [str(ROOT)]))
    print("\n".join(found) or "words: plain English, and the field's terms")
    if found:
        print(f"{len(found)} to rewrite: say it in the fewest plain words; tools/words.py has the list")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
