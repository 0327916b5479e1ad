"""What torch and transformers raise for want of memory or of a tracker, as errors of this project."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from peft_core.errors import InvalidInput, PeftDaemonError
from peft_tuning.job import TuneJob
from peft_tuning.memory import is_out_of_memory


class OutOfMemory(PeftDaemonError):
    """The run needs more memory than there is."""

    code, status, exit_code = "out_of_memory", 507, 11


@contextmanager
def plain_failures(job: TuneJob) -> Iterator[None]:
    """Raises OutOfMemory and InvalidInput in the place of their errors; lets all others through."""
    try:
        yield
    except PeftDaemonError:
        raise
    except (MemoryError, RuntimeError) as error:
        if is_out_of_memory(error):
            smaller = max(16, job.batch_tokens // 2)
            raise OutOfMemory(
                "there is not enough memory for this run",
                why=str(error).splitlines()[0] if str(error) else "",
                fix=f"Try `--batch-tokens {smaller}`, `--gradient-checkpointing`, or `--method qlora-4bit`",
            ) from None
        if job.report_to and "installed" in str(error):
            raise InvalidInput(
                f"cannot report to {', '.join(job.report_to)}",
                why=str(error).splitlines()[0],
                fix="Install it, or leave `--report-to` out",
            ) from None
        raise
