"""How processes find one another, or do not: checks of `distributed_checks.py`."""

from processes import FLAGS, JAXDQN, command, free_port, listening, started, wait_for


def a_coordinator_that_is_not_there_is_said(folder):
    port = free_port()
    words = ["train", *FLAGS.split(), "--output", folder / "run", "--connect-timeout", 3]
    with started([command(folder, *words, index=1, port=port)]) as (alone,):
        _, said = alone.communicate(timeout=30)
    assert alone.returncode == 2
    wanted = (
        f"jaxdqn: --distributed: 127.0.0.1:{port} has not answered, or not all processes have come there within 3 s"
    )
    assert said.startswith(wanted), said
    assert said.count("\n") == 1
    assert not (folder / "run").exists()


def the_coordinator_listens_where_it_is_told(folder):
    """A line says so where that is everywhere and nobody asked for it."""
    for coordinator, bind, wanted in (
        ("127.0.0.1", [], "127.0.0.1"),
        ("203.0.113.7", [], None),
        ("203.0.113.7", ["--coordinator-bind", "127.0.0.1"], "127.0.0.1"),
    ):
        port = free_port()
        where = ["--distributed", "--coordinator", f"{coordinator}:{port}", "--num-processes", 2, "--process-id", 0]
        words = [*JAXDQN, "train", *FLAGS.split(), "--output", folder / "run", *where, *bind]
        with started([words]) as (alone,):
            wait_for(lambda: listening(alone, port), [alone])  # noqa: B023, it is called at once
            (host,) = listening(alone, port)
            alone.kill()
            _, said = alone.communicate(timeout=30)
        assert host.removeprefix("::ffff:") == wanted if wanted else host in ("::", "0.0.0.0"), host
        assert said == "" if wanted else said.startswith("jaxdqn: --distributed: process 0 listens on all"), said


def a_cluster_tells_each_its_place(folder):
    """As SLURM does, which JAX reads; without one, the flags that are needed are named."""
    words = [*JAXDQN, "train", *FLAGS.split(), "--total-frames", "128", "--output", folder / "run", "--distributed"]
    job = {"SLURM_JOB_ID": free_port(), "SLURM_STEP_NODELIST": "localhost", "SLURM_NTASKS": 2}
    envs = [{**job, "SLURM_PROCID": index, "SLURM_LOCALID": index} for index in (0, 1)]
    envs = [{name: str(value) for name, value in env.items()} for env in envs]
    with started([words, words], envs) as processes:
        said = [process.communicate(timeout=120) for process in processes]
    assert [process.returncode for process in processes] == [0, 0], said
    assert f"kept in {folder / 'run'}" in said[0][0]
    assert "kept in" not in said[1][0]
    with started([[*words[:-2], folder / "other", words[-1]]]) as (alone,):
        _, said = alone.communicate(timeout=60)
    assert alone.returncode == 2
    wanted = "no cluster is found: give --coordinator HOST:PORT --num-processes N --process-id I"
    assert said == f"jaxdqn: --distributed: {wanted}\n", said


def other_flags_are_refused_by_all(folder):
    port = free_port()
    both = [["train", *FLAGS.split(), "--output", folder / "run", "--gamma", gamma] for gamma in (0.9, 0.8)]
    with started([command(folder, *words, index=index, port=port) for index, words in enumerate(both)]) as processes:
        said = [process.communicate(timeout=60)[1] for process in processes]
    assert [process.returncode for process in processes] == [2, 2], said
    assert all("process 1 has gamma 0.8 and process 0 0.9: start all with the same" in text for text in said), said
    assert not (folder / "run").exists()
