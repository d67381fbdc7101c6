import json
from pathlib import Path

import pytest

from unispector.config import load_config
from unispector.errors import CheckpointError, ConfigError, DataError, TrainingError
from unispector.modeling.saved_model import load_model
from unispector.pipeline.train import finish, plan
from unispector.project.paths import CHECKPOINTS, MAPS, TRAINING_SUMMARY
from unispector.training.job import MAPS_USED, initial_model
from unispector.training.jobs import TrainingReport, own_cpus, side_by_side, train_tracked
from unispector.training.ray_trainer import Machine


def changed(config, section, **values):
    return config.model_copy(update={section: getattr(config, section).model_copy(update=values)})


@pytest.fixture
def config(tiny_project):
    """The default with the base trained beside it, with one seed."""
    return changed(load_config(tiny_project / "params.yaml"), "train", ablation_seeds=(42,))


def test_every_model_of_the_benchmark_is_planned(tiny_project, config):
    jobs = plan(config, tiny_project)
    assert [(job.variant, job.seed) for job in jobs] == [
        ("unispector", 42),
        ("unispector", 82),
        ("base", 42),
        ("untrained", 42),
        ("untrained", 82),
    ]
    assert len({job.key for job in jobs}) == len(jobs)
    assert all(job.train_file.is_file() and job.train_file.is_absolute() for job in jobs)
    assert all(job.work_directory.parent == tiny_project / CHECKPOINTS for job in jobs)
    assert jobs[2].model_directory == tiny_project / "artifacts/models/base/seed42"


def test_the_base_lacks_the_contributions(tiny_project, config):
    base = plan(config, tiny_project)[2].config
    assert not base.model.spectral.enabled
    assert not base.model.query_selection.enabled
    assert base.loss.contrastive == 0
    assert base.train == config.train


def test_a_checkpoint_goes_on_only_when_nothing_that_matters_changed(tiny_project, config):
    key = plan(config, tiny_project)[0].key
    assert plan(changed(config, "evaluate", pictures=1), tiny_project)[0].key == key
    assert plan(changed(config, "prompt", test_roi="mask"), tiny_project)[0].key == key
    assert plan(changed(config, "prompt", cross_image=0.1), tiny_project)[0].key != key
    assert plan(changed(config, "train", learning_rate=7e-4), tiny_project)[0].key != key
    path = tiny_project / "data/training-fingerprints.json"
    path.write_text(json.dumps({"42": "another", "82": "82"}))
    assert plan(config, tiny_project)[0].key != key


def test_a_file_of_weights_counts_by_its_content_and_is_found_from_any_folder(
    tiny_project, config, tmp_path, monkeypatch
):
    backbone = config.model.backbone.model_copy(update={"weights": "own/lite.safetensors"})
    own = changed(config, "model", backbone=backbone)
    file = tiny_project / "own/lite.safetensors"
    file.parent.mkdir()
    file.write_bytes(b"one")
    (first, *_), key = plan(own, tiny_project), plan(config, tiny_project)[0].key
    assert first.config.model.below(first.root).backbone.weights == str(file)
    assert first.config.model == own.model
    assert first.key != key
    monkeypatch.chdir(tmp_path)  # as a worker of Ray
    with pytest.raises(CheckpointError, match=str(file)):
        initial_model(first)
    file.write_bytes(b"two")
    assert plan(own, tiny_project)[0].key != first.key


def test_a_start_that_is_not_there_is_named(tiny_project, config):
    with pytest.raises(ConfigError, match=r"train\.start: .*nowhere: no such file"):
        plan(changed(config, "train", start=Path("nowhere")), tiny_project)


def test_seeds_must_be_there(tiny_project, config):
    with pytest.raises(ConfigError, match=r"train\.seeds: 7 "):
        plan(changed(config, "train", seeds=(42, 7)), tiny_project)
    with pytest.raises(ConfigError, match=r"train\.ablation_seeds: 82 "):
        plan(changed(config, "train", seeds=(42,), ablation_seeds=(42, 82)), tiny_project)


def test_another_seed_leaves_the_checkpoints_of_the_others(tiny_project, config):
    few = plan(changed(config, "train", seeds=(42,)), tiny_project)
    assert [(job.variant, job.seed) for job in few] == [("unispector", 42), ("base", 42), ("untrained", 42)]
    keys = {job.name: job.key for job in plan(config, tiny_project)}
    assert all(keys[job.name] == job.key for job in few)


def test_planning_needs_the_stages_before(tmp_path, config):
    with pytest.raises(DataError, match="make repro"):
        plan(config, tmp_path / "empty")


def test_the_untrained_model_is_the_start_of_the_trained_one(tiny_project, config):
    job = plan(config, tiny_project)[3]
    report = train_tracked(job, tiny_project)
    saved = load_model(job.model_directory)
    assert (report.steps, report.loss, report.run_id) == (0, None, "")
    assert saved.fingerprint == report.fingerprint
    assert "mlflow_run_id" not in saved.provenance
    start = initial_model(job).state_dict()
    assert all(value.equal(start[name]) for name, value in saved.model.state_dict().items())


def test_the_end_leaves_a_summary_and_no_checkpoints(tiny_project, config):
    jobs = plan(config, tiny_project)[:1]
    jobs[0].work_directory.mkdir(parents=True)
    (jobs[0].work_directory / "checkpoint.safetensors").write_bytes(b"x")
    finish(jobs, [TrainingReport("unispector", 42, 4, 1.5, 60.0, "abc", "run")], tiny_project)
    summary = json.loads((tiny_project / TRAINING_SUMMARY).read_text())
    assert summary["unispector-seed42"]["loss"] == 1.5
    assert not jobs[0].work_directory.exists()


def test_the_end_keeps_the_maps_that_a_training_used_and_only_those(tiny_project, config):
    jobs, maps = plan(config, tiny_project)[:2], tiny_project / MAPS
    for name in ("used", "old"):
        (maps / name).mkdir(parents=True)
        (maps / name / "view0.maps").touch()
    reports = [TrainingReport("unispector", job.seed, 4, 1.5, 60.0, "abc", "run") for job in jobs]
    finish(jobs, reports, tiny_project)
    assert {folder.name for folder in maps.iterdir()} == {"used", "old"}
    jobs[1].work_directory.mkdir(parents=True)
    (jobs[1].work_directory / MAPS_USED).write_text("used")
    finish(jobs, reports, tiny_project)
    assert [folder.name for folder in maps.iterdir()] == ["used"]
    assert (maps / "used" / "view0.maps").exists()


def test_the_end_keeps_what_mlflow_has_not_got(tiny_project, config):
    jobs = plan(config, tiny_project)[:1]
    jobs[0].work_directory.mkdir(parents=True)
    for name in ("checkpoint.safetensors", "progress.jsonl", "run.json"):
        (jobs[0].work_directory / name).write_bytes(b"x")
    finish(jobs, [TrainingReport("unispector", 42, 4, 1.5, 60.0, "abc", "")], tiny_project)
    assert sorted(file.name for file in jobs[0].work_directory.iterdir()) == ["progress.jsonl", "run.json"]


def test_jobs_that_need_more_cpus_than_there_are_still_run(config):
    greedy = changed(config, "train", threads=1000)
    assert own_cpus(greedy) == 1000
    assert side_by_side(greedy, (Machine(own_cpus(greedy), 0),)) == 1


def test_as_many_at_a_time_as_there_is_room_for_or_fewer(config):
    where = (Machine(8, 0), Machine(4, 0))
    assert side_by_side(changed(config, "train", threads=2), where) == 6
    assert side_by_side(changed(config, "train", threads=2, side_by_side=3), where) == 3
    assert side_by_side(changed(config, "train", threads=2, side_by_side=99), where) == 6
    with pytest.raises(TrainingError, match=r"4 of 1 threads .* 2 machines with 12 CPUs and 2 GPUs"):
        side_by_side(changed(config, "train", processes=4), (Machine(8, 2), Machine(4, 0)))


def test_how_a_job_is_run_does_not_make_it_another_one(tiny_project, config):
    keys = [job.key for job in plan(config, tiny_project)]
    otherwise = changed(config, "train", side_by_side=1, retries=5, timeout_hours=2.0)
    assert [job.key for job in plan(otherwise, tiny_project)] == keys


@pytest.mark.slow
@pytest.mark.integration
def test_two_processes_train_one_model(tiny_project, config, ray_cluster):
    job = plan(changed(config, "train", processes=2, batch_size=4), tiny_project)[0]
    report = train_tracked(job, tiny_project)
    saved = load_model(job.model_directory)
    assert saved.fingerprint == report.fingerprint
    start = initial_model(job).state_dict()
    assert not all(value.equal(start[name]) for name, value in saved.model.state_dict().items())
    lines = (job.work_directory / "progress.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in lines] == [1, 2, 3, 4]
