"""The command `mled`: what people do outside the web pages.

Modules are imported inside the commands, so that `mled --help` answers at once.
"""

from __future__ import annotations

import dataclasses
import os
import sys

import click

from mled import settings as mled_settings

PASSTHROUGH = {"ignore_unknown_options": True, "help_option_names": []}


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.pass_context
def mled(context: click.Context) -> None:
    """The experiment warehouse: grids run by Airflow, recorded, and turned into dashboards."""
    context.obj = mled_settings.load()


@mled.command()
@click.option("--demo/--no-demo", default=True, help="Run the demo on the first start.")
@click.option("--began", type=float, hidden=True, help="When `make up` began, in Unix seconds.")
@click.pass_obj
def up(settings: mled_settings.Settings, demo: bool, began: float | None) -> None:
    """Start what is not running and wait until it answers."""
    from mled import startup

    startup.up(settings, with_demo=demo, began=began)


@mled.command()
@click.pass_obj
def down(settings: mled_settings.Settings) -> None:
    """Stop everything and wait for it."""
    from mled import startup

    startup.down(settings)


@mled.command()
@click.pass_obj
def status(settings: mled_settings.Settings) -> None:
    """Show each program; fail when one is down."""
    from mled import status

    sys.exit(0 if status.show(settings) else 1)


@mled.command()
@click.argument("names", nargs=-1)
@click.option(
    "-n", "--lines", default=20, show_default=True, help="Lines of each log to begin with."
)
@click.pass_obj
def logs(settings: mled_settings.Settings, names: tuple[str, ...], lines: int) -> None:
    """Follow the logs of all programs, or of those named."""
    from mled import services

    unknown = set(names) - {*services.NAMES, "supervisord"}
    if unknown:
        known = ", ".join((*services.NAMES, "supervisord"))
        raise click.BadParameter(f"{', '.join(sorted(unknown))}: the logs are {known}")
    files = [str(services.log_file(settings, name)) for name in names or services.NAMES]
    # --follow=name goes on with the new file after a log was rotated.
    os.execvp("tail", ["tail", f"--lines={lines}", "--follow=name", "--retry", *files])


@mled.command()
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.pass_obj
def reset(settings: mled_settings.Settings, yes: bool) -> None:
    """Stop everything and delete all state."""
    from mled import startup

    if not settings.home.exists():
        click.echo(f"nothing to delete: {settings.home} does not exist")
        return
    startup.check_resettable(settings.home)
    if not yes:
        click.confirm(f"Delete {settings.home}, with every experiment in it?", abort=True)
    startup.reset(settings)


@mled.command()
@click.pass_obj
def demo(settings: mled_settings.Settings) -> None:
    """Run the demo experiments and one ETL."""
    from mled import demo, steps

    demo.run(settings, steps.Steps())


@mled.command("settings")
@click.pass_obj
def show_settings(settings: mled_settings.Settings) -> None:
    """Show every setting: variable, value and meaning."""
    for field in dataclasses.fields(settings):
        value, name = getattr(settings, field.name), mled_settings.variable(field)
        note = "" if value == field.default else f" (default: {field.default})"
        click.echo(f"{name:<26}{value!s:<28}{field.metadata['help']}{note}")


@mled.command(context_settings=PASSTHROUGH)
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
@click.pass_obj
def airflow(settings: mled_settings.Settings, arguments: tuple[str, ...]) -> None:
    """Run Airflow's own command on this installation."""
    from mled import services

    command = str(services.BIN / "airflow")
    os.execve(command, [command, *arguments], services.airflow_environment(settings))


@mled.command(context_settings=PASSTHROUGH)
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
@click.pass_obj
def dbt(settings: mled_settings.Settings, arguments: tuple[str, ...]) -> None:
    """Run dbt on this installation's project."""
    from mled import services

    command = str(services.BIN / "dbt")
    os.execve(command, [command, *arguments], services.dbt_environment(settings))


def main() -> None:
    """Run the command; an error that a person can mend is one line, without a traceback."""
    try:
        mled()
    except (RuntimeError, OSError, mled_settings.SettingsError) as error:
        click.echo(f"mled: {error}", err=True)
        sys.exit(1)
