"""The graph: types, inputs, permissions; one file a domain. Fields are thin; resolvers and services do the work."""
