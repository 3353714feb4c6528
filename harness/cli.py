"""The command line: ``relduel VERB [hydra overrides]``.

Guarantees: exit 0 ok, 1 a check failed or a trial did not end ok, 2 usage or bad input, 130 on Ctrl-C; with ``--json``
stdout carries one JSON document and nothing else. Importing this file loads neither torch nor pandas nor relbench, so
``--help`` answers at once.
"""

from __future__ import annotations

import argparse
import difflib
import importlib
import sys
from collections.abc import Sequence
from typing import Final, NoReturn

#: Verb to one line of help; ``harness/commands/<verb>.py`` has the rest.
VERBS: Final[dict[str, str]] = {
    "doctor": "say what this machine can run, and why not",
    "run": "run one trial in a fresh process",
    "parity": "hold every backend against the reference",
    "sweep": "run a named plan of trials, resuming what is done",
    "merge": "copy the records of several stores into one",
    "duel": "race two configs side by side, with a verdict",
    "calibrate": "find out what this machine can tell apart",
    "boost": "score what stands beside every model: trivial predictors, gradient boosting, LightGBM",
    "baseline": "promote a store to a baseline for later checks",
    "check": "hold a store against a baseline, and fail on regressions",
    "submit": "write the CSV files that RelBench's leaderboard takes, and validate them",
    "report": "write report.html and report.md of a store",
    "data": "describe a data set: schema, keys, nulls, degrees, times, diagram",
    "plot": "write the figures of a store",
    "completion": "print a completion script for a shell",
    "ls": "list data sets, tasks, models, backends, samplers, modes of torch.compile or sweeps",
    "show": "print one record of a store",
}

_EPILOG: Final = """\
Overrides are Hydra's: backend=dgl model.channels=128 'seed=range(0,5)'. 'relduel VERB --help' has an example of each.

exit codes: 0 ok, 1 a check failed or a trial did not end ok, 2 usage or bad input, 130 Ctrl-C
"""


class Parser(argparse.ArgumentParser):
    """An argparse parser whose errors are one line with the closest name, and whose exit code is 2."""

    def error(self, message: str) -> NoReturn:
        """Print the message and the command that helps, exit 2."""
        self.exit(2, f"{self.prog}: {message}\ntry '{self.prog} --help'\n")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a verb and return its exit code."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    top = Parser(
        prog="relduel",
        description="Prove that PyG and DGL compute the same function on a relational database, then race them.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    top.add_argument("--version", action="store_true", help="print the version and exit")
    top.add_argument(
        "verb", nargs="?", metavar="VERB", help="; ".join(f"{name}: {text}" for name, text in VERBS.items())
    )
    if not words or words[0].startswith("-"):
        options = top.parse_args(words)
        if options.version:
            print(_version())
            return 0
        print(_overview(top))
        return 0 if not words else 2
    verb, rest = words[0], words[1:]
    if verb not in VERBS:
        close = difflib.get_close_matches(verb, VERBS, n=1)
        hint = f"; did you mean {close[0]!r}?" if close else ""
        top.error(f"unknown verb {verb!r}{hint} (verbs: {', '.join(VERBS)})")
    command = importlib.import_module(f"harness.commands.{verb}")
    parser = Parser(
        prog=f"relduel {verb}",
        description=command.__doc__,
        epilog=command.EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--json", action="store_true", help="print one JSON document on stdout and nothing else there")
    command.add_arguments(parser)
    options = parser.parse_intermixed_args(rest)
    try:
        code: int = command.run(options)
    except ValueError as error:
        print(f"relduel {verb}: {error}", file=sys.stderr)
        return 2
    except BrokenPipeError:  # the reader of our output has seen enough
        sys.stderr.close()
        return 0
    except OSError as error:  # a full disk, a folder that may not be written
        print(f"relduel {verb}: {error.strerror or error}: {error.filename or 'a file of the store'}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(f"relduel {verb}: interrupted; run the same command again to go on", file=sys.stderr)
        return 130
    return code


def _overview(top: Parser) -> str:
    verbs = "\n".join(f"  {name:<8} {text}" for name, text in VERBS.items())
    return f"usage: relduel VERB [overrides] [--json]\n\n{top.description}\n\nverbs:\n{verbs}\n\n{top.epilog}"


def _version() -> str:
    from importlib.metadata import version

    return f"relduel {version('relduel')}"


if __name__ == "__main__":
    sys.exit(main())
