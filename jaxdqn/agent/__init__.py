"""The agent: a few pure functions over one state, made from a config by `make_agent`."""
