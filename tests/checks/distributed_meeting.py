"""How processes find each other, or fail to: checks of `distributed_checks.py`."""

from processes import FLAGS, JAXDQN, command, free_port, listening_addresses, started, wait_for


def missing_coordinator_is_reported(folder):
    port = free_port()
    words = ["train", *FLAGS.split(), "--output", folder / "run", "--connect-timeout", 3]
    with started([command(folder, *words, index=1, port=port)]) as (alone,):
        _, output = alone.communicate(timeout=30)
    assert alone.returncode == 2
    wanted = f"jaxdqn: --distributed: 127.0.0.1:{port} did not answer, or not all processes connected to it, within 3 s"
    assert output.startswith(wanted), output
    assert output.count("\n") == 1
    assert not (folder / "run").exists()


def coordinator_listens_on_the_given_address(folder):
    """It prints a line if it listens on all interfaces although the user did not ask for that."""
    for coordinator, bind, wanted in (
        ("127.0.0.1", [], "127.0.0.1"),
        ("203.0.113.7", [], None),
        ("203.0.113.7", ["--coordinator-bind", "127.0.0.1"], "127.0.0.1"),
    ):
        port = free_port()
        flags = ["--distributed", "--coordinator", f"{coordinator}:{port}", "--num-processes", 2, "--process-id", 0]
        words = [*JAXDQN, "train", *FLAGS.split(), "--output", folder / "run", *flags, *bind]
        with started([words]) as (alone,):
            wait_for(lambda: listening_addresses(alone, port), [alone])  # noqa: B023, called immediately
            (host,) = listening_addresses(alone, port)
            alone.kill()
            _, output = alone.communicate(timeout=30)
        assert host.removeprefix("::ffff:") == wanted if wanted else host in ("::", "0.0.0.0"), host
        assert output == "" if wanted else output.startswith("jaxdqn: --distributed: process 0 listens on all"), output


def processes_find_each_other_through_the_cluster(folder):
    """JAX reads the variables of SLURM; without a cluster, the message names the flags that are needed."""
    words = [*JAXDQN, "train", *FLAGS.split(), "--total-frames", "128", "--output", folder / "run", "--distributed"]
    job = {"SLURM_JOB_ID": free_port(), "SLURM_STEP_NODELIST": "localhost", "SLURM_NTASKS": 2}
    envs = [{**job, "SLURM_PROCID": index, "SLURM_LOCALID": index} for index in (0, 1)]
    envs = [{name: str(value) for name, value in env.items()} for env in envs]
    with started([words, words], envs) as processes:
        output = [process.communicate(timeout=120) for process in processes]
    assert [process.returncode for process in processes] == [0, 0], output
    assert f"saved in {folder / 'run'}" in output[0][0]
    assert "saved in" not in output[1][0]
    with started([[*words[:-2], folder / "other", words[-1]]]) as (alone,):
        _, output = alone.communicate(timeout=60)
    assert alone.returncode == 2
    wanted = "no cluster found: give --coordinator HOST:PORT --num-processes N --process-id I"
    assert output == f"jaxdqn: --distributed: {wanted}\n", output


def different_flags_are_refused_by_all(folder):
    port = free_port()
    both = [["train", *FLAGS.split(), "--output", folder / "run", "--gamma", gamma] for gamma in (0.9, 0.8)]
    with started([command(folder, *words, index=index, port=port) for index, words in enumerate(both)]) as processes:
        output = [process.communicate(timeout=60)[1] for process in processes]
    assert [process.returncode for process in processes] == [2, 2], output
    assert all("process 1 has gamma 0.8 and process 0 0.9: start all with the same" in text for text in output), output
    assert not (folder / "run").exists()
