"""When and where: a Prefect flow that runs the stages of dvc.yaml. It knows stages by name only."""
