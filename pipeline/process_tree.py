"""Finding processes by what is in their environment, and ending whole families of them."""

from contextlib import suppress

import psutil

# s for processes to end before they are killed. A cancelled run is to be gone in 10 s, the notice of it included; no
# process needs longer: stages write their files complete or not at all.
GRACE = 5.0


def marked(variable: str, value: str) -> list[psutil.Process]:
    """Processes in whose environment a variable has a value."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.environ().get(variable) == value:
                found.append(process)
        except psutil.Error:  # it has just ended, or is another user's and so no stage of ours
            continue
    return found


def end(*processes: psutil.Process) -> None:
    """End processes and their descendants: first asked to, then killed."""
    family = set(processes)
    for process in processes:
        with suppress(psutil.NoSuchProcess):  # it ended by itself meanwhile
            family.update(process.children(recursive=True))
    for signalled in (psutil.Process.terminate, psutil.Process.kill):
        for member in family:
            with suppress(psutil.NoSuchProcess):
                signalled(member)
        _, family = psutil.wait_procs(family, timeout=GRACE)
