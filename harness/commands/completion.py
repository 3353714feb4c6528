"""Print a completion script for bash, zsh or fish: verbs, sweep names, override keys and the names on the shelf."""

from __future__ import annotations

import argparse

from harness.commands.common import print_json

EXAMPLES = """\
example:
  relduel completion bash > ~/.local/share/bash-completion/completions/relduel
  relduel completion zsh > "${fpath[1]}/_relduel"
  relduel completion fish > ~/.config/fish/completions/relduel.fish
"""

SHELLS = ("bash", "zsh", "fish")

_BASH = """\
_relduel() {{
    local current="${{COMP_WORDS[COMP_CWORD]}}" words
    # bash splits words at '=': put key=value together again.
    local line="${{COMP_LINE:0:COMP_POINT}}"
    current="${{line##* }}"
    if [ "$COMP_CWORD" -eq 1 ]; then words="{verbs}"
    else
        case "${{COMP_WORDS[1]}}" in
            ls) words="{lists}" ;;
            data) words="describe {overrides}" ;;
            completion) words="{shells}" ;;
            sweep) words="{sweeps} {overrides}" ;;
            *) words="{overrides}" ;;
        esac
        words="$words --help --json --store"
    fi
    COMPREPLY=($(compgen -W "$words" -- "$current"))
    case "$current" in
        *=*) COMPREPLY=("${{COMPREPLY[@]#"${{current%%=*}}="}}") ;;
    esac
    case "${{COMPREPLY[0]}}" in
        *=) compopt -o nospace ;;
    esac
}}
complete -F _relduel relduel
"""

_ZSH = """\
#compdef relduel
_relduel() {{
    local -a words
    if (( CURRENT == 2 )); then words=({verbs})
    else
        case "$words[2]" in
            ls) words=({lists}) ;;
            data) words=(describe {overrides}) ;;
            completion) words=({shells}) ;;
            sweep) words=({sweeps} {overrides}) ;;
            *) words=({overrides}) ;;
        esac
        words+=(--help --json --store)
    fi
    compadd -- $words
}}
_relduel "$@"
"""

_FISH = """\
complete -c relduel -f
complete -c relduel -n __fish_use_subcommand -a '{verbs}'
complete -c relduel -n '__fish_seen_subcommand_from ls' -a '{lists}'
complete -c relduel -n '__fish_seen_subcommand_from data' -a 'describe'
complete -c relduel -n '__fish_seen_subcommand_from completion' -a '{shells}'
complete -c relduel -n '__fish_seen_subcommand_from sweep' -a '{sweeps}'
complete -c relduel -n '__fish_seen_subcommand_from run sweep parity data' -a '{overrides}'
complete -c relduel -l help -l json -l store
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the shell."""
    parser.add_argument("shell", metavar="SHELL", help=f"one of {', '.join(SHELLS)}")


def run(options: argparse.Namespace) -> int:
    """Print the script."""
    from harness.cli import VERBS
    from harness.commands.ls import KINDS
    from harness.compose import override_words, shelf_names
    from tasks.names import did_you_mean

    if options.shell not in SHELLS:
        raise ValueError(f"shell {options.shell!r}: {did_you_mean(options.shell, SHELLS)}")
    words = {
        "verbs": VERBS,
        "lists": KINDS,
        "shells": SHELLS,
        "sweeps": shelf_names("sweep"),
        "overrides": override_words(),
    }
    template = {"bash": _BASH, "zsh": _ZSH, "fish": _FISH}[options.shell]
    script = template.format(**{name: " ".join(its) for name, its in words.items()})
    if options.json:
        print_json({"shell": options.shell, "script": script})
    else:
        print(script, end="")
    return 0
