"""A person in GraphiQL finds an explanation of everything."""

from __future__ import annotations

from graphql import GraphQLEnumType, GraphQLInputObjectType, GraphQLInterfaceType, GraphQLObjectType

from schema.build import served_schema


def test_everything_of_the_graph_is_described() -> None:
    bare = []
    for name, type_ in served_schema().type_map.items():
        if name.startswith("__"):
            continue
        if not type_.description:
            bare.append(name)
        if isinstance(type_, GraphQLEnumType):
            bare += [f"{name}.{value}" for value, item in type_.values.items() if not item.description]
        elif isinstance(type_, GraphQLObjectType | GraphQLInterfaceType):
            for field_name, field in type_.fields.items():
                if not field.description:
                    bare.append(f"{name}.{field_name}")
                bare += [
                    f"{name}.{field_name}({argument_name}:)"
                    for argument_name, argument in field.args.items()
                    # The one argument of every mutation is described by its type.
                    if not argument.description and not (name == "Mutation" and argument_name == "input")
                ]
        elif isinstance(type_, GraphQLInputObjectType):
            bare += [f"{name}.{field_name}" for field_name, item in type_.fields.items() if not item.description]
    assert not bare
