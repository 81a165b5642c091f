from benchmark_runs import results, run_benchmark


def test_checks_are_felt_where_tensors_are_tiny(tmp_path):
    written = run_benchmark(tmp_path, "typing_overhead", "--pairs 4")
    printed, found = written[0], results(written)
    assert printed.endswith((tmp_path / "numbers.json").read_text())
    assert set(found) == {"pairs", "training step", "chunk"}
    for name in ("training step", "chunk"):
        line = f"{name}: {found[name]['milliseconds_with_checks']:.1f} ms with checks, "
        assert line in printed
    step, chunk = found["training step"], found["chunk"]
    assert step["milliseconds_without_checks"] > 10 * chunk["milliseconds_without_checks"]
    # Measured: 0.8 to 0.96 alone, 0.27 beside other work; without a difference it is 0.
    assert chunk["overhead"] > 0.1
