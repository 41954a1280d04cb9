"""The ``layerangles`` command: its subcommands, and the exit codes of errors."""

import sys
from typing import Annotated

import typer

from layerangles.errors import InputError, RunError
from layerangles.extras import as_missing_extra

from . import angles, compare, demo, draw, env, merge, plan, report, train, verdict

app = typer.Typer(
    name="layerangles",
    help="Which teacher layer should a student layer be matched to, and why does it matter so little?",
    epilog="Start with: layerangles demo",
    no_args_is_help=True,
    add_completion=False,
    # Tracebacks show only our own failures, and values of local variables would make them unreadable.
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
app.command(name="demo")(demo.demo)
app.command(name="plan")(plan.plan)
app.command(name="train")(train.train)
app.command(name="angles")(angles.angles)
app.command(name="compare")(compare.compare)
app.command(name="merge")(merge.merge)
app.command(name="verdict")(verdict.verdict)
app.command(name="report")(report.report)
app.command(name="draw")(draw.draw)
app.command(name="env")(env.env)


def _print_version(wanted: bool) -> None:
    if wanted:
        import layerangles

        typer.echo(f"layerangles {layerangles.__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Which teacher layer should a student layer be matched to, and why does it matter so little?"""


def run() -> None:
    """Run the command line. Exit code 2 for a user's error, 1 for a failure, 130 for Ctrl-C."""
    try:
        app()
    except ModuleNotFoundError as error:
        missing = as_missing_extra(error)
        if missing is None:
            raise
        typer.echo(f"Error: {missing}", err=True)
        sys.exit(2)
    except InputError as error:
        typer.echo(f"Error: {error}", err=True)
        sys.exit(2)
    except RunError as error:
        typer.echo(f"Error: {error}", err=True)
        sys.exit(1)
    except KeyboardInterrupt:  # outside a command, where typer does not catch it
        sys.exit(130)
