"""A tuning run from the user's request to an adapter in use: load, train, judge, register, activate.

The order matters. Everything that can be refused is refused before anything is loaded; an adapter is judged before it
is registered, and registered before it is activated. What is to be done with it is written down before that, so a run
that is killed meanwhile does the rest when it is resumed.
"""

from __future__ import annotations

import gc
import os
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import psutil

from peft_core.api_types import Task
from peft_core.code.work_trees import main_folder
from peft_core.errors import Conflict, InvalidInput, NotFound, PeftDaemonError
from peft_core.files import private_folder, write_durable
from peft_core.paths import Paths
from peft_core.tasks import OnProgress
from peft_daemon.adapters.blobs import check_adapter
from peft_daemon.adapters.manifest import SHORT_DIGEST_LENGTH, Manifest, require_usable_name
from peft_daemon.engines import factory
from peft_daemon.engines.torch import families
from peft_daemon.lifecycle.runtime_info import find_running_daemon, publish_tuning_notice
from peft_tuning import methods
from peft_tuning.data.examples import DataSet, FillExample
from peft_tuning.events import AdapterRegistered, DataLoaded, GateVerdict, Loading, ModelWritten, TuneEvent, ignore
from peft_tuning.installation import Installation
from peft_tuning.job import TuneJob, load_identity
from peft_tuning.learned import document_digest, documents_learned, examples_seen, record_learned, record_seen
from peft_tuning.model_card import write_description

if TYPE_CHECKING:
    from peft_tuning.prepare import PreparedRun
    from peft_tuning.start import StartingPoint
    from peft_tuning.trainer import TuneResult


@dataclass(frozen=True, kw_only=True)
class TuneRequest:
    """A tuning run as the user asked for it."""

    name: str
    job: TuneJob
    load_data: Callable[[OnProgress[Loading]], DataSet]
    """Reads the data set; called once."""
    repository: Path | None = None
    """The repository of the data. Its adapter is used only there; one of other data everywhere."""
    activate: bool = True
    update: bool = False
    """Whether the name may exist; its present adapter becomes an earlier version."""
    resume: bool = False
    gate_holes: int = 96
    """Most held-out examples of a task to judge by; a third as many again to choose the scale, and a quarter of
    general code. With 0 the adapter is not judged, and so not put in use."""
    budget_s: float | None = None
    """Time for training and judging; None: as many steps as the job says."""
    start: StartingPoint | None = None
    """The adapter that it begins with."""


OUTCOME_FILE = "outcome.json"


class RunOutcome(msgspec.Struct, frozen=True, kw_only=True):
    """The content of ``outcome.json``: what a run came to, from before the registry is changed on."""

    digest: str
    """Of the adapter in the run's folder."""
    by_digest: bool
    """Whether the name goes on to mean what it means now."""
    verdicts: tuple[GateVerdict, ...] = ()
    unlearned: int
    registered: AdapterRegistered | None = None
    """The run's last event; None: the registry may not be changed yet, or not in all that there is to change."""


def check(request: TuneRequest, installation: Installation) -> None:
    """Refuse what cannot work before anything is loaded.

    Raises Conflict if the name is taken, InvalidInput if it cannot be an adapter's name or the base's family does not
    support the method, NotFound if the base is not installed.
    """
    require_usable_name(request.name)
    method, family = methods.get(request.job.method), families.family_of(installation.entry.family)
    method.check(family, request.job.options)
    if family.encoder_decoder and method.id in methods.WITH_VIRTUAL_TOKENS:
        raise InvalidInput(
            f"what {method.id} tuning makes of an encoder-decoder model is not served",
            why=f"{installation.entry.id} has an encoder, which virtual tokens would need a place in too",
            fix="Choose `--method lora` or `--method ia3`",
        )
    if not installation.base.path.exists():
        raise NotFound(
            f"{installation.entry.id} is not installed", fix=f"`peft-daemon models pull {installation.entry.id}`"
        )
    installation.require_intact()
    if not request.update and not request.resume and installation.registry.history(request.name):
        raise Conflict(
            f"an adapter '{request.name}' exists",
            fix="Choose another `--name`, or add `--update` to make this its next version",
        )


def default_threads(paths: Paths) -> int:
    """Return the number of physical cores; one less while a daemon serves, which needs it for completions."""
    cores = psutil.cpu_count(logical=False) or os.cpu_count() or 1
    return max(1, cores - 1) if find_running_daemon(paths) is not None else cores


def run(request: TuneRequest, installation: Installation, on_progress: OnProgress[TuneEvent]) -> None:
    """Do the whole run and report its events, with ``torchrun`` in the main process only.

    The last event is AdapterRegistered, or ModelWritten for a method that makes a whole model. Raises the errors of
    every step.
    """
    from peft_tuning import trainer  # noqa: PLC0415  (transformers' optimizers: seconds)
    from peft_tuning.prepare import is_main_process  # noqa: PLC0415

    check(request, installation)
    folder = private_folder(installation.folder(request.name))
    outcome = _read_outcome(folder)
    finished = (folder / trainer.ADAPTER).exists() and not (folder / trainer.CHECKPOINTS).exists()
    if (finished or (outcome and outcome.registered)) and not request.resume:
        shutil.rmtree(folder)
        private_folder(folder)
    on_progress = on_progress if is_main_process() else ignore
    last: AdapterRegistered | ModelWritten
    if request.resume and outcome is not None and _is_whole(outcome, folder / trainer.ADAPTER, installation):
        if not is_main_process():
            return
        for verdict in outcome.verdicts:
            on_progress(verdict)
        last = _conclude(request, installation, outcome)
        shutil.rmtree(folder / trainer.CHECKPOINTS, ignore_errors=True)
        on_progress(last)
        return
    with publish_tuning_notice(installation.paths, request.name):
        data = request.load_data(on_progress)
        on_progress(_data_loaded(data))
        prepared = prepare(request, installation, data, on_progress)
        result = trainer.train(prepared, folder, on_progress, resume=request.resume)
        del prepared
        gc.collect()
        if not is_main_process():
            return
        if methods.get(request.job.method).makes_adapter:
            last = _register(request, installation, data, result, on_progress)
        else:
            write_description(request.name, installation.entry, data, result)
            last = ModelWritten(name=request.name, folder=str(result.adapter))
    shutil.rmtree(folder / trainer.CHECKPOINTS, ignore_errors=True)
    on_progress(last)


def _data_loaded(data: DataSet) -> DataLoaded:
    return DataLoaded(
        name=data.name,
        train=len(data.train),
        validation=len(data.validation),
        test=len(data.test),
        licence=data.licence,
        provenance=data.provenance,
    )


def prepare(
    request: TuneRequest, installation: Installation, data: DataSet, on_progress: OnProgress[TuneEvent]
) -> PreparedRun:
    """Load the base in the method's precision and encode the data for it; see ``prepare.prepare``."""
    from peft_tuning import budget, prepare  # noqa: PLC0415  (torch: seconds)
    from peft_tuning.start import with_start  # noqa: PLC0415

    entry, job = installation.entry, request.job
    if request.start is not None:
        job = with_start(job, request.start)
    if request.resume and request.budget_s is not None:
        job = budget.as_begun(job, load_identity(installation.folder(request.name)))
    base = prepare.load_base(
        installation.base.path,
        methods.get(job.method),
        lambda precision: on_progress(Loading(what=f"{entry.id} as {precision}")),
    )
    if entry.hub_name:
        # PEFT writes it into the adapter's config, from which other tools load the base.
        base.model.name_or_path = entry.hub_name
    made = prepare.prepare(job, base, data, entry.prompt_formats, start=request.start)
    if request.budget_s is None or request.resume:
        return made
    on_progress(Loading(what="measuring a few steps"))
    return budget.fit(made, request.budget_s * (1 - budget.GATE_SHARE))


def _register(
    request: TuneRequest,
    installation: Installation,
    data: DataSet,
    result: TuneResult,
    on_progress: OnProgress[TuneEvent],
) -> AdapterRegistered:
    """Judge the adapter, describe it, and do with it what follows from that."""
    verdicts = _judged(request, installation, data, result, on_progress)
    for verdict in verdicts:
        on_progress(verdict)
    write_description(request.name, installation.entry, data, result, verdicts)
    refused = not any(verdict.activate for verdict in verdicts)
    digest = check_adapter(result.adapter, installation.base).digest(installation.base.sha256)
    outcome = RunOutcome(
        digest=digest,
        # Where the name is in use, what it points at serves: a refused version is kept by its digest alone.
        by_digest=refused and installation.registry.is_named_in_use(request.name),
        verdicts=verdicts,
        unlearned=_note_learned(request, installation, data, result, digest),
    )
    _write_outcome(result.adapter.parent, outcome)
    return _conclude(request, installation, outcome)


def _conclude(request: TuneRequest, installation: Installation, outcome: RunOutcome) -> AdapterRegistered:
    """Register the adapter in the run's folder, and put it in use unless there is an objection.

    A second call does what the first was kept from; what is done already is only told again.
    """
    if outcome.registered is not None:
        return outcome.registered
    from peft_tuning.trainer import ADAPTER  # noqa: PLC0415  (transformers' optimizers: seconds)

    folder = installation.folder(request.name)
    manifest = installation.registry.import_(
        folder / ADAPTER, name=request.name, base=installation.base, moves_name=not outcome.by_digest
    )
    event = _activate(request, installation, manifest, outcome.verdicts)
    event = msgspec.structs.replace(event, unlearned=outcome.unlearned)
    if outcome.by_digest:
        event = msgspec.structs.replace(event, name=manifest.digest[:SHORT_DIGEST_LENGTH])
    _write_outcome(folder, msgspec.structs.replace(outcome, registered=event))
    return event


def _write_outcome(folder: Path, outcome: RunOutcome) -> None:
    write_durable(folder / OUTCOME_FILE, msgspec.json.format(msgspec.json.encode(outcome), indent=2))


def _read_outcome(folder: Path) -> RunOutcome | None:
    """Return what a run came to; None for one that has not come so far, and for a file that cannot be read."""
    try:
        return msgspec.json.decode((folder / OUTCOME_FILE).read_bytes(), type=RunOutcome)
    except (OSError, ValueError, RecursionError):
        return None


def _is_whole(outcome: RunOutcome, adapter: Path, installation: Installation) -> bool:
    """Return whether the adapter is the one that the outcome is about; else the run goes on from its checkpoint."""
    if outcome.registered is not None:
        return True
    try:
        return check_adapter(adapter, installation.base).digest(installation.base.sha256) == outcome.digest
    except (PeftDaemonError, OSError):
        return False


def _judged(
    request: TuneRequest,
    installation: Installation,
    data: DataSet,
    result: TuneResult,
    on_progress: OnProgress[TuneEvent],
) -> tuple[GateVerdict, ...]:
    """Return the gate's verdicts; what was chosen on the way from a starting point takes the adapter's place."""
    if not request.gate_holes:
        return ()
    from peft_tuning.judging import Court, judge_adapter  # noqa: PLC0415  (torch: seconds)
    from peft_tuning.mixture import mix  # noqa: PLC0415  (torch: seconds)

    start = request.start
    court = Court(repository=request.repository, holes=request.gate_holes, budget_s=request.budget_s, start=start)
    verdicts = judge_adapter(court, installation, data, result.adapter, on_progress)
    if verdicts and start is not None and verdicts[0].scale:
        mix(start.lease, result.adapter, verdicts[0].scale, result.adapter)
    return verdicts


def _note_learned(
    request: TuneRequest, installation: Installation, data: DataSet, result: TuneResult, digest: str
) -> int:
    """Note what a run saw, and its documents if it saw all of them; return how many of the repository's are left."""
    from peft_tuning.data.repository.documents import LIBRARY  # noqa: PLC0415  (the detectors of secrets)

    examples = data.train[: result.identity.limit]
    before = documents_learned(installation.paths, request.start.lease.digest) if request.start else frozenset()
    seen = examples_seen(installation.paths, request.start.lease.digest) if request.start else frozenset()
    record_seen(installation.paths, digest, examples, seen)
    # Examples that cannot be encoded are among them, so a run that came to its end may have taken fewer steps.
    finished = not result.stopped_early and result.identity.max_steps is None
    if finished or result.steps * result.identity.batch_size >= len(examples):
        record_learned(installation.paths, digest, examples, before)
    return sum(
        isinstance(each, FillExample)
        and each.learn_all
        and not each.path.startswith(LIBRARY)
        and document_digest(each) not in before
        for each in data.train[len(examples) :]
    )


def _activate(
    request: TuneRequest, installation: Installation, manifest: Manifest, verdicts: Sequence[GateVerdict]
) -> AdapterRegistered:
    """Put the adapter in use for the tasks that it won, where its data are of, unless there is an objection."""
    refusal = _refusal(installation, manifest)
    objection = refusal or _objection(request, verdicts)
    won = {verdict.task for verdict in verdicts if verdict.activate}
    tasks = tuple(task for task in manifest.tasks if task in installation.answers and task.value in won)
    if not objection:
        installation.registry.use(request.name, tasks, request.repository)
    if request.repository:
        for verdict in verdicts:
            if verdict.context if not objection else request.activate and verdict.context_alone:
                installation.registry.show_context(verdict.context, request.repository)
    return AdapterRegistered(
        name=request.name,
        digest=manifest.digest,
        folder=str(installation.folder(request.name)),
        in_use=() if objection else tuple(task.value for task in tasks),
        repository=str(main_folder(request.repository)) if request.repository and not objection else None,
        why_not=objection,
        refused=bool(refusal),
    )


def _refusal(installation: Installation, manifest: Manifest) -> str:
    """Return the reason why the adapter cannot be used with these settings; empty without one."""
    try:
        manifest.require_engine(factory.engine_id(installation.settings, installation.entry))
    except InvalidInput as error:
        return error.line
    if not set(manifest.tasks) & set(installation.answers):
        if Task.EDIT in manifest.tasks:
            return f"next edits are made by {installation.settings.edit_model}, which `edit_model` names"
        return f"sentences are answered by {installation.settings.intent_model}, which `intent_model` names"
    return ""


def _objection(request: TuneRequest, verdicts: Sequence[GateVerdict]) -> str:
    """Return the reason not to use an adapter that could be used; empty without one."""
    if not request.activate:
        return "not asked for"
    if any(verdict.activate for verdict in verdicts):
        return ""
    return "; ".join(verdict.reason for verdict in verdicts) or "not judged"
