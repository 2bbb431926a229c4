// SPDX-License-Identifier: GPL-2.0 OR MIT

//! The outermost objects: migration information, parameter lists.

use bumpalo::collections::Vec as ArenaVec;
use migration::model::Type;
use migration::value::{model_problem, name_problem, str_problem, Param, Value};
use serde::de::{Error, MapAccess};

use super::model::ModelObject;
use super::strict::{AnyValue, Object, ObjectSeed, Skip, Text};
use super::{Context, Info, Source, MAX_PARAMS};

/// `{"generation": …, "models": {…}}`
#[derive(Default)]
pub(super) struct InfoObject<'a> {
    name: Option<&'a str>,
    generation: Option<&'a str>,
    types: Option<&'a [Type<'a>]>,
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
                let models = ModelsObject(ArenaVec::new_in(context.arena));
                self.types = Some(map.next_value_seed(ObjectSeed::new(context, models))?);
            }
            _ => map.next_value_seed(Skip(context))?,
        }
        Ok(())
    }

    fn finish<E: Error>(self, _: &Context<'a>) -> Result<Info<'a>, E> {
        match self.types {
            Some([]) => Err(E::custom("\"models\" is empty")),
            Some(types) => Ok(Info {
                name: self.name,
                generation: self.generation,
                types,
            }),
            None => Err(E::custom(
                "no \"models\": this is not migration information",
            )),
        }
    }
}

/// `{"<model>": {…}, …}`
struct ModelsObject<'a>(ArenaVec<'a, Type<'a>>);

impl<'a> Object<'a> for ModelsObject<'a> {
    type Output = &'a [Type<'a>];

    fn member<A: MapAccess<'a>>(
        &mut self,
        context: &Context<'a>,
        name: &'a str,
        map: &mut A,
    ) -> Result<(), A::Error> {
        if let Some(problem) = model_problem(name) {
            return Err(A::Error::custom(format!("the device model {problem}")));
        }
        let model = map.next_value_seed(ObjectSeed::new(context, ModelObject::new(name)))?;
        self.0.push(Type::of(model));
        Ok(())
    }

    fn finish<E: Error>(self, _: &Context<'a>) -> Result<Self::Output, E> {
        Ok(self.0.into_bump_slice())
    }
}

/// `{"model": "<model>", "params": {…}}`
#[derive(Default)]
pub(super) struct SourceObject<'a> {
    model: Option<&'a str>,
    params: Option<&'a [Param<'a>]>,
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
                if let Some(problem) = model_problem(model) {
                    return Err(A::Error::custom(format!("the device model {problem}")));
                }
                self.model = Some(model);
            }
            "params" => {
                let params = ParamsObject::new(context);
                self.params = Some(map.next_value_seed(ObjectSeed::new(context, params))?);
            }
            _ => {
                self.is_info |= name == "models";
                map.next_value_seed(Skip(context))?;
            }
        }
        Ok(())
    }

    fn finish<E: Error>(self, _: &Context<'a>) -> Result<Source<'a>, E> {
        match (self.model, self.params) {
            (Some(model), Some(params)) => Ok(Source { model, params }),
            _ if self.is_info => Err(E::custom(
                "this is migration information, which describes a destination, not a parameter list",
            )),
            (None, _) => Err(E::custom("no \"model\": this is not a parameter list")),
            (_, None) => Err(E::custom("no \"params\": this is not a parameter list")),
        }
    }
}

/// `{"<param>": value, …}`
pub(super) struct ParamsObject<'a>(ArenaVec<'a, Param<'a>>);

impl<'a> ParamsObject<'a> {
    pub(super) fn new(context: &Context<'a>) -> Self {
        Self(ArenaVec::new_in(context.arena))
    }
}

impl<'a> Object<'a> for ParamsObject<'a> {
    type Output = &'a [Param<'a>];

    fn member<A: MapAccess<'a>>(
        &mut self,
        context: &Context<'a>,
        name: &'a str,
        map: &mut A,
    ) -> Result<(), A::Error> {
        if let Some(problem) = name_problem(name) {
            return Err(A::Error::custom(format!("the name {problem}")));
        }
        if self.0.len() == MAX_PARAMS {
            return Err(A::Error::custom("too many parameters"));
        }
        let value = map.next_value_seed(AnyValue(context))?;
        if let Value::Str(text) = value {
            if let Some(problem) = str_problem(text) {
                return Err(A::Error::custom(format!("the value {problem}")));
            }
        }
        self.0.push(Param { name, value });
        Ok(())
    }

    fn finish<E: Error>(self, _: &Context<'a>) -> Result<Self::Output, E> {
        Ok(self.0.into_bump_slice())
    }
}
