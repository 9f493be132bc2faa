"""What README.md and docs/ say that can be checked: their commands with who executes each, and the paths they name."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]

# Executed as they stand, one after the other, in a clone whose graph has run (tests/test_graph.py).
HERE = [
    "dvc repro",
    "dvc repro train@tier-1",
    "python -m stages.train --help",
    "python -m stages.train --describe",
    "dvc metrics show",
    "dvc metrics diff",
    "dvc plots show",
    "dvc plots diff",
    "dvc exp run --set-param train.epochs=2",
    'dvc exp run --set-param "model.condition_on=[melody,phonemes]" '
    "--set-param generate.score=melnet/melodies/ode_to_joy.txt",
    "dvc exp show",
    "dvc remote add --default storage ../melnet-storage",
    "dvc push",
    "gto register melnet",
    "gto assign melnet --version v0.0.1 --stage prod",
    "dvc artifacts get . melnet --stage prod --out ../melnet-prod",
    "python -m melnet info",
    "python -m melnet sing --seconds 2 --out ../song.wav",
    "python -m melnet sing --seconds 2 --out - > ../piped.wav",
    "python -m melnet score samples/sample-00.wav",
    "cp params/three-tiers.yaml params.yaml",
]
GRAPH, FLOW, HOST = "tests/test_graph.py", "tests/pipeline/test_flow.py", "tests/host/test_host.py"
CLUSTER = (
    "tests/stages/execution/test_dask_cluster.py"
    "::test_with_a_worker_killed_midway_the_shards_and_the_lock_are_those_of_one_machine"
)
TOGETHER = "tests/stages/execution/test_together.py::test_two_processes_have_the_losses_of_one_whatever_is_killed"
TRAINED = f"{HOST}::test_train_leaves_model_and_metrics_and_shows_its_epochs"
SUNG = "tests/melnet/test_command_line.py::test_sing_follows_a_score"
READ = "tests/melnet/test_command_line.py::test_sing_reads_a_text"
SERVED = "tests/melnet/live/test_server.py::test_it_serves_with_nothing_but_a_model"
OVERRIDDEN = f"{HOST}::test_a_cancelled_training_leaves_no_process_and_resumes"
# Too long, or with addresses of their own: the test that does the same, or what CI executes.
ELSEWHERE = {
    "make lint": ".ci/run",
    "make test": ".ci/run",
    "make demo": f"{GRAPH}::test_it_ends_in_audio_pictures_and_metrics",
    "make install": ".ci/run",
    "python -m melnet sing --score melody.mid --transpose -5 --out song.wav": SUNG,
    'python -m melnet sing --text "m o l i t u" --out song.wav': READ,
    "make live": SERVED,
    "python -m melnet live": SERVED,
    "make host": f"{HOST}::test_host_can_be_brought_up_again_and_keeps_its_schedule",
    "make host-stop": f"{HOST}::host",
    "prefect deployment run melnet/train --watch": TRAINED,
    "prefect deployment run melnet/train -p target=train": OVERRIDDEN,
    "prefect deployment run melnet/train -p 'params={\"train.epochs\": 5}'": OVERRIDDEN,
    "prefect deployment run melnet/prepare -p force=true": (
        f"{HOST}::test_two_runs_started_together_are_served_one_after_the_other"
    ),
    "prefect deployment run melnet/generate -p push=true": f"{FLOW}::test_push_reports_where_the_versions_are",
    "dask scheduler --host 10.0.0.5": CLUSTER,
    "dask worker tcp://10.0.0.5:8786 --nthreads 1 --nworkers auto": CLUSTER,
    "DASK_SCHEDULER_ADDRESS=tcp://10.0.0.5:8786 dvc repro slice": CLUSTER,
    "KERAS_BACKEND=jax JAX_PROCESS_ID=0 dvc repro train@tier-1": TOGETHER,
    "KERAS_BACKEND=jax JAX_PROCESS_ID=1 python -m stages.train tier-1": TOGETHER,
    "KERAS_BACKEND=jax srun --nodes 2 --ntasks-per-node 4 python -m stages.train tier-1": (
        "tests/stages/execution/test_distributed.py::test_slurm_tells_them_where_to_meet"
    ),
}
# What no machine of ours can execute, and why.
NOWHERE = {
    "createdb prefect": "needs a PostgreSQL server",
    "PREFECT_SERVER_DATABASE_CONNECTION_URL=postgresql+asyncpg://USER:PASSWORD@DBHOST/prefect make host": (
        "needs a PostgreSQL server"
    ),
    "export PREFECT_API_URL=https://prefect.example.org/api": "needs a Prefect server elsewhere",
    "KERAS_BACKEND=jax mpirun -n 2 -x JAX_COORDINATOR_ADDRESS=10.0.0.5:8476 sh -c "
    "'JAX_NUM_PROCESSES=$OMPI_COMM_WORLD_SIZE JAX_PROCESS_ID=$OMPI_COMM_WORLD_RANK "
    "exec python -m stages.train tier-1'": "needs Open MPI",
}
# Made by some runs only.
SOMETIMES = {
    "data/tracks/texts.parquet",
    "samples/asked/",
    "samples/griffin-lim/*.wav",
    "samples/prime.wav",
    "samples/sample-00-joined.wav",
    "samples/text/",
}
MADE = ("data/", "metrics/", "models/", "plots/", "report/", "samples/")
SOURCES = (".ci/", "bench/", "docs/", "melnet/", "params/", "pipeline/", "stages/", "tests/")


def commands(text):
    """Every command line of the shell blocks, without prompt and comment; continued lines as one."""
    blocks = re.findall(r"^```(?:sh|bash|shell|console)\n(.*?)^```", text, re.M | re.S)
    lines = [line for block in blocks for line in block.replace("\\\n", " ").splitlines()]
    stripped = (re.sub(r"(^|\s)#\s.*$", "", line).removeprefix("$ ").strip() for line in lines)
    return [" ".join(line.split()) for line in stripped if line]


def all_commands():
    """Commands of all pages with the page's name."""
    return [(page.name, command) for page in PAGES for command in commands(page.read_text(encoding="utf-8"))]


def paths(text, folders):
    """Files and folders/ in backticks below some folders, without those with a part to fill in."""
    quoted = set(re.findall(r"(?<!`)`([^`\n]+)`(?!`)", text))
    to_fill_in = re.compile(r"[ {}<>]|NAME|TIER")
    is_path = re.compile(r".*(/|\.\w+)")
    return sorted(
        name for name in quoted if name.startswith(folders) and is_path.fullmatch(name) and not to_fill_in.search(name)
    )
