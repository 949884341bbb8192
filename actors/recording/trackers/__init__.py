"""Sinks for experiment trackers, each behind an extra: the keys are those of metrics.jsonl."""

TRACKERS: dict[str, str] = {
    "wandb": "actors.recording.trackers.wandb_sink:WandbSink",
    "mlflow": "actors.recording.trackers.mlflow_sink:MlflowSink",
    "trackio": "actors.recording.trackers.trackio_sink:TrackioSink",
}
"""Names for ``type`` in ``logging.sinks``, and where the classes are."""
