// SPDX-License-Identifier: GPL-2.0 OR MIT

//! The outermost objects: migration information, parameter lists.

use migration::model::{Type, VERSION};
use migration::value::{model_form_problem, name_form_problem, Param, Value};
use serde::de::{Error, MapAccess};

use super::allowed::form_problem;
use super::model::ModelObject;
use super::strict::{AnyValue, Entry, List, Object, ObjectSeed, Skip, Text};
use super::{Context, Info, Source};

/// `{"generation": …, "models": {…}}`
#[derive(Default)]
pub(super) struct InfoObject<'a> {
    name: Option<&'a str>,
    generation: Option<&'a str>,
    types: Option<&'a [Type<'a>]>,
    /// A member of the other form of a candidate is there.
    is_compatible: bool,
}

/// Two offers in one document, of which each reader would take another one.
pub(super) const BOTH_FORMS: &str =
    "\"models\" beside \"self\" or \"compatible\": what is offered is told by one of them";

/// The members of a candidate in the other form.
const OTHER_FORM: [&str; 2] = ["self", "compatible"];

impl<'a> InfoObject<'a> {
    /// Whether there are models.
    pub(super) fn has_models(&self) -> bool {
        self.types.is_some()
    }

    /// Name and generation.
    pub(super) fn head(&self) -> (Option<&'a str>, Option<&'a str>) {
        (self.name, self.generation)
    }
}

impl<'a> Object<'a> for InfoObject<'a> {
    type Output = Info<'a>;

    fn member<A: MapAccess<'a>>(
        &mut self,
        context: &Context<'a>,
        name: &'a str,
        map: &mut A,
    ) -> Result<(), A::Error> {
        match name {
            "name" => self.name = Some(map.next_value_seed(Text(context))?),
            "generation" => self.generation = Some(map.next_value_seed(Text(context))?),
            "models" => {
                let types = List::read(context, Models, map)?;
                let types = context.arena.alloc_slice_copy(types);
                types.sort_by_key(|ty| ty.model.name);
                self.types = Some(types);
            }
            _ => {
                self.is_compatible |= OTHER_FORM.contains(&name);
                map.next_value_seed(Skip(context))?;
            }
        }
        Ok(())
    }

    fn finish<E: Error>(self, _: &Context<'a>) -> Result<Info<'a>, E> {
        match self.types {
            Some(_) if self.is_compatible => Err(E::custom(BOTH_FORMS)),
            Some([]) => Err(E::custom("\"models\" is empty")),
            Some(types) => Ok(Info {
                name: self.name,
                generation: self.generation,
                types,
            }),
            None if self.is_compatible => Err(E::custom(
                "this tells which types take the state of an instance: it is a source, or a candidate of `select`",
            )),
            None => Err(E::custom(
                "no \"models\": this is not migration information",
            )),
        }
    }
}

pub(super) fn check_model<E: Error>(name: &str) -> Result<(), E> {
    match model_form_problem(name) {
        Some(problem) => Err(E::custom(format!("the device model {problem}"))),
        None => Ok(()),
    }
}

/// `{"<model>": {…}, …}`
struct Models;

impl<'a> Entry<'a> for Models {
    type Item = Type<'a>;

    fn read<A: MapAccess<'a>>(
        &self,
        context: &Context<'a>,
        name: &'a str,
        _: &[Self::Item],
        map: &mut A,
    ) -> Result<Self::Item, A::Error> {
        check_model(name)?;
        let model = map.next_value_seed(ObjectSeed::new(context, ModelObject::new(name)))?;
        Ok(Type::of(model))
    }
}

/// `{"model": "<model>", "params": {…}}`, or `"version"` in place of `"params"` where the model is known by versions alone
#[derive(Default)]
pub(super) struct SourceObject<'a> {
    model: Option<&'a str>,
    params: Option<&'a [Param<'a>]>,
    version: Option<&'a str>,
    /// The instance that an object with "self" and "compatible" is about.
    own: Option<Source<'a>>,
    is_info: bool,
}

impl<'a> Object<'a> for SourceObject<'a> {
    type Output = Source<'a>;

    fn member<A: MapAccess<'a>>(
        &mut self,
        context: &Context<'a>,
        name: &'a str,
        map: &mut A,
    ) -> Result<(), A::Error> {
        match name {
            "model" => {
                let model = map.next_value_seed(Text(context))?;
                check_model(model)?;
                self.model = Some(model);
            }
            "params" => {
                let params = List::read(context, Params, map)?;
                let params = context.arena.alloc_slice_copy(params);
                params.sort_by_key(|param| param.name);
                self.params = Some(params);
            }
            "self" => {
                let own = ObjectSeed::new(context, SourceObject::default());
                self.own = Some(map.next_value_seed(own)?);
            }
            "version" => {
                let version = map.next_value_seed(Text(context))?;
                check_text(version)?;
                self.version = Some(version);
            }
            _ => {
                self.is_info |= name == "models";
                map.next_value_seed(Skip(context))?;
            }
        }
        Ok(())
    }

    fn finish<E: Error>(self, context: &Context<'a>) -> Result<Source<'a>, E> {
        let version = self.version.map(|version| Param {
            name: VERSION,
            value: Value::Str(version),
        });
        let params = match (self.params, version) {
            (None, Some(version)) => Some(&*context.arena.alloc_slice_copy(&[version])),
            (Some(_), Some(_)) => {
                return Err(E::custom(
                    "\"version\" beside \"params\": a source is known by one of them",
                ))
            }
            (params, None) => params,
        };
        match (self.model, params, self.own) {
            (Some(model), Some(params), _) => Ok(Source { model, params }),
            (None, None, Some(own)) => Ok(own),
            _ if self.is_info => Err(E::custom(
                "this is migration information, which describes a destination, not a parameter list",
            )),
            (None, _, _) => Err(E::custom("no \"model\": this is not a parameter list")),
            (_, None, _) => Err(E::custom("no \"params\": this is not a parameter list")),
        }
    }
}

/// `{"<param>": value, …}`
pub(super) struct Params;

impl<'a> Entry<'a> for Params {
    type Item = Param<'a>;

    fn read<A: MapAccess<'a>>(
        &self,
        context: &Context<'a>,
        name: &'a str,
        _: &[Self::Item],
        map: &mut A,
    ) -> Result<Self::Item, A::Error> {
        if let Some(problem) = name_form_problem(name) {
            return Err(A::Error::custom(format!("the name {problem}")));
        }
        let value = map.next_value_seed(AnyValue(context))?;
        if let Value::Str(text) = value {
            check_text(text)?;
        }
        Ok(Param { name, value })
    }
}

fn check_text<E: Error>(text: &str) -> Result<(), E> {
    match form_problem(text) {
        Some(problem) => Err(E::custom(problem)),
        None => Ok(()),
    }
}
