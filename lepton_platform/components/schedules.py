from types import SimpleNamespace
def jobs(task): return SimpleNamespace(all=[])
def schedules(*a): return []
def sensors(*a): return []
