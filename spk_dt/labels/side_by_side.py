"""Tasks for the reference method that run side by side, one process each; some begin when others are done."""

from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from queue import SimpleQueue

from spk_dt.labels.reference_process import NoLabelError, ReferenceProcess

__all__ = ["Task", "side_by_side"]


@dataclass(frozen=True)
class Task:
    """Something to be computed.

    Args:
        name: name, for messages.
        run: does it with a process, and returns the tasks that can begin then.
    """

    name: str
    run: Callable[[ReferenceProcess], Iterable["Task"]]


def side_by_side(
    tasks: Iterable[Task],
    processes: Sequence[ReferenceProcess],
    failed: Callable[[str, str, bool], None],
) -> dict[str, str]:
    """Do tasks, and those that follow, as many at once as there are processes; with one process in their order.

    Args:
        tasks: tasks to begin with.
        processes: processes that compute; an error, or an interruption by the user, ends them.
        failed: called with the name of a task, why it failed, and whether others go on.

    Returns:
        why tasks failed with `NoLabelError`, by name; the others are done, but for those that follow a failed one.
    """
    failures: dict[str, str] = {}
    idle: SimpleQueue[ReferenceProcess] = SimpleQueue()
    for process in processes:
        idle.put(process)

    def run(task: Task) -> list[Task]:
        process = idle.get()
        try:
            return list(task.run(process))
        finally:
            process.rest()
            idle.put(process)

    with ThreadPoolExecutor(len(processes)) as threads:
        pending: dict[Future[list[Task]], Task] = {threads.submit(run, task): task for task in tasks}
        try:
            while pending:
                for future in wait(pending, return_when=FIRST_COMPLETED).done:
                    task = pending.pop(future)
                    try:
                        following = future.result()
                    except NoLabelError as error:
                        failures[task.name] = str(error)
                        failed(task.name, str(error), bool(pending))
                        continue
                    pending |= {threads.submit(run, one): one for one in following}
        except BaseException:
            threads.shutdown(wait=False, cancel_futures=True)
            for process in processes:
                process.stop()
            raise
    return failures
