"""Help in groups: commands by what a reader wants to do, options by what they decide."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import click
from click.exceptions import NoSuchCommand

SHORT = 50  # characters: the first sentence of a command's help is shorter, so that no terminal cuts it
OTHER = "Other"

Sections = dict[str, tuple[str, ...]]


class GroupedCommands(click.Group):
    """A group whose help lists its commands in ``sections``: heading -> names of commands."""

    sections: Sections = {}  # noqa: RUF012 - one table for the class
    wrong_names: dict[str, str] = {}  # noqa: RUF012 - what people type -> the command or option that does it

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write each section; a command that no section names stands under OTHER."""
        visible = {name: command for name, command in self.commands.items() if not command.hidden}
        width = max(map(len, visible))
        for heading, names in grouped(self.sections, visible):
            with formatter.section(heading):
                formatter.write_dl([(f"{name:<{width}}", first_sentence(visible[name])) for name in names])

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """The command; for a name that does not exist the nearest one is suggested, not a list."""
        try:
            return super().resolve_command(ctx, args)
        except NoSuchCommand as error:
            names = [name for name, command in self.commands.items() if not command.hidden]
            near = self.wrong_names.get(args[0].lower()) or nearest(args[0], names)
            suggestion = f" Did you mean {near!r}?" if near else ""
            raise click.UsageError(f"No such command {error.command_name!r}.{suggestion}", ctx) from None


class GroupedOptions(click.Command):
    """A command whose help lists its options in ``sections``: heading -> names of parameters."""

    def __init__(self, *args: object, sections: Sections | None = None, **kwargs: object) -> None:
        super().__init__(*args, **kwargs)  # type: ignore[arg-type]
        self.sections = sections or {}

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write each section; an option that no section names stands under OTHER."""
        records = {}
        for parameter in self.get_params(ctx):
            record = parameter.get_help_record(ctx)
            if record is not None and not isinstance(parameter, click.Argument):
                records["help" if "--help" in parameter.opts else str(parameter.name)] = record
        for heading, names in grouped(self.sections, records):
            with formatter.section(heading):
                formatter.write_dl([records[name] for name in names])


def grouped(sections: Sections, names: Iterable[str]) -> list[tuple[str, Sequence[str]]]:
    """The ``names`` by heading, in the order of the sections; what no section names comes last."""
    present = list(names)
    of_heading: list[tuple[str, Sequence[str]]] = [
        (heading, [name for name in listed if name in present]) for heading, listed in sections.items()
    ]
    listed = {name for names_of in sections.values() for name in names_of}
    of_heading.append((OTHER, [name for name in present if name not in listed]))
    return [(heading, names_of) for heading, names_of in of_heading if names_of]


def first_sentence(command: click.Command) -> str:
    """The first line of a command's help, without its full stop."""
    return (command.help or "").strip().partition("\n")[0].rstrip(".")


def nearest(name: str, names: Iterable[str]) -> str | None:
    """The name that is most alike, where one is."""
    import difflib

    near = difflib.get_close_matches(name.lower(), list(names), n=1)
    return near[0] if near else None
