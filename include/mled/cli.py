"""The command `mled`: what people do outside the web pages.

Modules are imported inside the commands, so that `mled --help` answers at once.
"""

from __future__ import annotations

import dataclasses
import os
import sys
from pathlib import Path

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

    known = (*services.names(settings), "supervisord")
    unknown = set(names) - {*known}
    if unknown:
        raise click.BadParameter(f"{', '.join(sorted(unknown))}: the logs are {', '.join(known)}")
    files = [str(services.log_file(settings, name)) for name in names or known[:-1]]
    # --follow=name goes on with the new file after a log was rotated.
    os.execvp("tail", ["tail", f"--lines={lines}", "--follow=name", "--retry", *files])


@mled.command()
@click.argument("name")
@click.pass_obj
def run(settings: mled_settings.Settings, name: str) -> None:
    """Run one program in the foreground: for containers, and for workers on other machines."""
    from mled import services, startup

    program = services.program(settings, name)
    startup.prepare(settings)
    environment = {**services.inherited_environment(settings), **program.environment}
    os.execve(program.command[0], program.command, environment)


@mled.command()
@click.argument("name")
@click.pass_obj
def healthy(settings: mled_settings.Settings, name: str) -> None:
    """Fail when a program of a cluster is not at work; for containers and monitors."""
    from mled import health

    health.check_program(settings, name)


@mled.command()
@click.pass_obj
def init(settings: mled_settings.Settings) -> None:
    """Create or upgrade the databases of Airflow and the store, for a cluster."""
    from mled import startup

    startup.initialise(settings)


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
@click.option("--once", is_flag=True, help="Do nothing if it was run before.")
@click.pass_obj
def demo(settings: mled_settings.Settings, once: bool) -> None:
    """Run the demo experiments and one ETL."""
    from mled import demo, steps

    if once and demo.is_done(settings):
        click.echo("the demo was run before")
        return
    demo.run(settings, steps.Steps())


@mled.command()
@click.option("--full-refresh", is_flag=True, help="Build all marts anew from staging.")
@click.pass_obj
def etl(settings: mled_settings.Settings, full_refresh: bool) -> None:
    """Bring what trials recorded into the mart, as Airflow does every hour.

    Does what an earlier run left undone that failed or was killed. Ends with an error, and changes
    nothing, while another one is at work.
    """
    from mled.steps import Steps
    from mled.warehouse import pipeline

    report = pipeline.run_etl(settings, full_refresh, Steps().step)
    click.echo(f"{report.rows_changed:,} rows had changed; version {report.mart_version} is shown")


@mled.group()
def warehouse() -> None:
    """Look after the warehouse."""


@warehouse.command()
@click.option(
    "--from",
    "source",
    type=click.Choice(["store", "staging"]),
    default="store",
    show_default=True,
    help="Read the whole store again, or only the batches in staging.",
)
@click.pass_obj
def rebuild(settings: mled_settings.Settings, source: str) -> None:
    """Build the mart anew, as if for the first time.

    Needed when the store was restored from a backup, or the warehouse's files were damaged.
    Dashboards show the present version until the new one is there.
    """
    from mled.steps import Steps
    from mled.warehouse import pipeline

    shown = Steps().step
    if source == "store":
        report = pipeline.rebuild(settings, shown)
    else:
        report = pipeline.run_etl(settings, full_refresh=True, shown=shown)
    click.echo(f"{report.rows_read:,} rows were read; version {report.mart_version} is shown")


@warehouse.command()
@click.pass_obj
def check(settings: mled_settings.Settings) -> None:
    """Fail when a run takes too long, or none has succeeded for two hours; for monitors."""
    from mled.warehouse import alerts

    text = alerts.problem(settings)
    if text:
        raise click.ClickException(text)
    click.echo("no run takes too long, and the last success is recent enough, if there was one")


@warehouse.command("where")
@click.pass_obj
def show_places(settings: mled_settings.Settings) -> None:
    """Show where the data lies, and how far staging and the mart have come."""
    from mled.warehouse import places

    for line in places.lines(settings):
        click.echo(line)


@warehouse.command()
@click.pass_obj
def push(settings: mled_settings.Settings) -> None:
    """Copy what lies in the home folder to MLED_OBJECT_STORE.

    Batches, the published mart and artifacts; what is there already is not sent again. From then
    on every command that sees MLED_OBJECT_STORE works there.
    """
    from contextlib import contextmanager

    from mled.warehouse.push import push

    @contextmanager
    def bar(name: str, size: int):
        with click.progressbar(length=size, label=f"{name:<10}{size / 1e6:10,.1f} MB") as shown:
            yield shown.update

    push(settings, bar)
    click.echo(f"all of it is in {settings.object_store}")


@warehouse.command(context_settings={"ignore_unknown_options": True})
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
@click.pass_obj
def analyst(settings: mled_settings.Settings, arguments: tuple[str, ...]) -> None:
    """Build new and changed models in a private copy of the published mart.

    \b
    ARGUMENTS are dbt's; without any, what has changed is built, and all is tested. Such as:
      mled warehouse analyst build --select slow_trials
      mled warehouse analyst show --inline "select count(*) from {{ ref('trials') }}"
      mled warehouse analyst source freshness
    """
    from mled import services
    from mled.warehouse import analyst, dbt

    click.echo(f"building in {analyst.prepare(settings)}", err=True)
    command = str(services.BIN / "dbt")
    environ = services.dbt_environment(settings) | analyst.environment(settings)
    os.execve(command, [command, *(arguments or dbt.BUILD)], environ)


@warehouse.command()
@click.option(
    "--port",
    type=click.IntRange(1, 65535),
    default=8090,
    show_default=True,
    help="Where the pages are served.",
)
@click.pass_obj
def docs(settings: mled_settings.Settings, port: int) -> None:
    """Serve the documentation of the dbt project: lineage, columns, tests."""
    import subprocess

    from mled import services
    from mled.warehouse import analyst

    analyst.prepare(settings)
    command = str(services.BIN / "dbt")
    environ = services.dbt_environment(settings) | analyst.environment(settings)
    subprocess.run([command, "--quiet", "docs", "generate"], env=environ, check=True)
    click.echo(f"http://{settings.host}:{port}  (Ctrl-C ends it)")
    serve = [command, "docs", "serve", "--host", settings.host, "--port", str(port), "--no-browser"]
    os.execve(command, serve, environ)


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


@mled.group()
def store() -> None:
    """Look after the store: check it, back it up, put a backup back, move it."""


@store.command("upgrade")
@click.pass_obj
def upgrade_store(settings: mled_settings.Settings) -> None:
    """Create the store, or bring its schema up to this version's."""
    from mled.store import migrate
    from mled.store.database import head

    migrate(settings)
    click.echo(f"the store's schema is {head()}")


@store.command("check")
@click.pass_obj
def check_store(settings: mled_settings.Settings) -> None:
    """Check the store's file and references; fail when something is wrong."""
    from mled.store import backup, connect

    problems = backup.check(connect(settings))
    for problem in problems:
        click.echo(problem)
    click.echo(f"{len(problems)} problems" if problems else "the store is sound")
    sys.exit(1 if problems else 0)


@store.command("backup")
@click.pass_obj
def back_up_store(settings: mled_settings.Settings) -> None:
    """Copy the store while it is in use, and delete the backups that are too old."""
    from mled.store import backup

    taken = backup.take(settings)
    click.echo(f"{taken.path} ({taken.size / 1e6:,.1f} MB)")
    for old in backup.prune(settings):
        click.echo(f"deleted {old.path}")


@store.command("backups")
@click.pass_obj
def list_backups(settings: mled_settings.Settings) -> None:
    """List the backups, newest first."""
    from mled.store import backup

    for found in backup.backups(settings):
        click.echo(
            f"{found.taken_at:%Y-%m-%d %H:%M:%S} UTC  {found.size / 1e6:10,.1f} MB  {found.path}"
        )


@store.command("move")
@click.option("--to", required=True, help="An empty database: postgresql://user@host/database")
@click.option("--when-idle", is_flag=True, help="Close the old store while no trial is running.")
@click.pass_obj
def move_store(settings: mled_settings.Settings, to: str, when_idle: bool) -> None:
    """Move the store from SQLite to PostgreSQL while trials go on writing to it.

    Writers wait for a moment at the end; then the old store refuses them with the new one's
    address. Nothing is lost: killed at any moment, the same command goes on where it was. A
    password may be in the URL, in PGPASSWORD, or in ~/.pgpass.
    """
    from mled.steps import Steps
    from mled.store import move

    moved = move.move(settings, to, when_idle=when_idle, shown=Steps().rows)
    click.echo(move.what_next(settings, to, moved))


@store.command("diagram")
def show_diagram() -> None:
    """Print the entity-relationship diagram of the store, in Mermaid's notation."""
    from mled.store.diagram import mermaid

    click.echo(mermaid(), nl=False)


@store.command("restore")
@click.argument("path", required=False, type=click.Path(path_type=Path))
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.pass_obj
def restore_store(settings: mled_settings.Settings, path: Path | None, yes: bool) -> None:
    """Put a backup (the newest by default) in the store's place; the old store is kept."""
    from mled.store import backup

    found = backup.backups(settings)
    chosen = path or (found[0].path if found else None)
    if chosen and not yes:
        click.confirm(f"Put {chosen} in the place of the store?", abort=True)
    restored, old = backup.restore(settings, path)
    click.echo(f"restored {restored.path}" + (f"; the old store is {old}" if old else ""))
    click.echo("the mart still shows the old store: rebuild it as the next ETL's message says")


def main() -> None:
    """Run the command; an error that a person can mend is one line, without a traceback."""
    try:
        mled()
    except (RuntimeError, OSError, mled_settings.SettingsError) as error:
        click.echo(f"mled: {error}", err=True)
        sys.exit(1)
