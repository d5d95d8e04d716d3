"""What is deployed: a defs.yaml a task; schedules, sensors, resources."""
