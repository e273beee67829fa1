"""The measuring process: its protocol, its crashes and its time limits."""

import subprocess
import sys
import time

import pytest

from runtime_bench import BenchError, RuntimeMissingError
from runtime_bench.process import WorkerProcess

REQUEST = {"op": "load"}


def process(code: str, silence_s: float = 20.0) -> WorkerProcess:
    return WorkerProcess("slim.int8.onnx", silence_s, [sys.executable, "-c", code])


def test_a_crash_names_the_file_and_the_last_error_line() -> None:
    code = "import sys; sys.stderr.write('first\\nout of tensors\\n\\n'); sys.exit(7)"
    with (
        pytest.raises(BenchError, match=r"slim\.int8\.onnx: .* exit code 7; .*: out of tensors"),
        process(code) as worker,
    ):
        worker.ask(REQUEST)


def test_a_signal_is_named() -> None:
    code = "import os; input(); os.kill(os.getpid(), 9)"
    with pytest.raises(BenchError, match="SIGKILL .often: out of memory"), process(code) as worker:
        worker.ask(REQUEST)


def test_silence_ends_in_an_error_and_the_process_with_it() -> None:
    code = "import sys, time; sys.stderr.write('stuck here\\n'); sys.stderr.flush(); time.sleep(99)"
    started = time.monotonic()
    with (
        pytest.raises(BenchError, match=r"no answer to 'load' within 2 s; .*: stuck here"),
        process(code, 2.0) as worker,
    ):
        worker.ask(REQUEST)
    assert worker._process.returncode is not None
    assert time.monotonic() - started < 60


def test_signs_of_life_reset_the_limit() -> None:
    code = (
        "import time\ninput()\n"
        "for n in range(4):\n    time.sleep(0.6)\n    print('{\"done\": %d}' % n, flush=True)\n"
        "print('{\"ok\": 1}', flush=True)\ninput()"
    )
    seen: list[int] = []
    with process(code, 2.0) as worker:
        assert worker.ask(REQUEST, seen.append) == {"ok": 1}
    assert seen == [0, 1, 2, 3]


@pytest.mark.parametrize(
    ("missing", "kind", "text"),
    [("true", RuntimeMissingError, "no luck"), ("false", BenchError, "slim.int8.onnx: no luck")],
)
def test_answered_errors_become_exceptions(missing: str, kind: type[BenchError], text: str) -> None:
    line = f'{{"error": "no luck", "missing_runtime": {missing}}}'
    with (
        pytest.raises(BenchError, match=f"^{text}$") as caught,
        process(f"input(); print('{line}', flush=True); input()") as worker,
    ):
        worker.ask(REQUEST)
    assert type(caught.value) is kind


def test_an_unreadable_answer_is_an_error() -> None:
    with (
        pytest.raises(BenchError, match="unreadable answer 'hello"),
        process("input(); print('hello', flush=True); input()") as worker,
    ):
        worker.ask(REQUEST)


def test_the_real_worker_answers_and_ends_with_its_input() -> None:
    with WorkerProcess("x", 60.0) as worker:
        with pytest.raises(BenchError, match="x: ValueError: nothing is loaded"):
            worker.ask({"op": "time", "runs": 1, "warmup": 0, "image_shape": [3, 4, 5]})
        with pytest.raises(BenchError, match="x: KeyError"):
            worker.ask({"op": "dance"})
    assert worker._process.returncode == 0


def test_importing_the_bench_brings_in_nothing_heavy() -> None:
    code = (
        "import sys, pkgutil, importlib, runtime_bench\n"
        "for item in pkgutil.iter_modules(runtime_bench.__path__):\n"
        "    importlib.import_module(f'runtime_bench.{item.name}')\n"
        "print(*sorted({name.partition('.')[0] for name in sys.modules}))"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120
    )
    loaded = set(result.stdout.split())
    assert {"runtime_bench", "numpy"} <= loaded
    ours = {"boards", "compressor", "exporters", "compress_export"}
    heavy = {"torch", "torchvision", "pydantic", "yaml", "onnx", "onnxruntime", "ai_edge_litert"}
    assert not loaded & (ours | heavy | {"tflite_runtime", "sklearn", "jax", "typer", "rich"})
