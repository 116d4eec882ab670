"""Conventions that hold over the whole graph."""

from __future__ import annotations

from graphql import GraphQLNonNull, GraphQLObjectType, get_named_type

from schema.build import served_schema

SCHEMA = served_schema()


def test_mutations_take_one_input_and_return_a_payload() -> None:
    assert SCHEMA.mutation_type is not None
    for name, field in SCHEMA.mutation_type.fields.items():
        assert list(field.args) == ["input"], name
        assert isinstance(field.args["input"].type, GraphQLNonNull), name
        assert get_named_type(field.type).name.endswith("Payload"), name


def test_lists_of_lists_are_pages() -> None:
    """Whatever takes `first` is a Relay connection with `after`, and every connection takes both."""
    for type_ in SCHEMA.type_map.values():
        if not isinstance(type_, GraphQLObjectType) or type_.name.startswith("__"):
            continue
        for name, field in type_.fields.items():
            is_connection = get_named_type(field.type).name.endswith("Connection")
            assert is_connection == ("first" in field.args), f"{type_.name}.{name}"
            assert is_connection <= ("after" in field.args), f"{type_.name}.{name}"


def test_what_has_an_id_of_its_own_is_a_node() -> None:
    for type_ in SCHEMA.type_map.values():
        if isinstance(type_, GraphQLObjectType) and "id" in type_.fields:
            assert any(interface.name == "Node" for interface in type_.interfaces), type_.name
