"""The feature store: views, point-in-time sets, online reads."""
