// SPDX-License-Identifier: GPL-2.0 OR MIT

//! What a document says of itself, without what it offers.

use serde::de::{Error, MapAccess};

use super::strict::{Object, Skip, Text};
use super::{Context, Head};

/// `{"name": …, "generation": …}`, with or without the rest.
#[derive(Default)]
pub(super) struct HeadObject<'a> {
    name: Option<&'a str>,
    generation: Option<&'a str>,
    is_whole: bool,
}

impl<'a> Object<'a> for HeadObject<'a> {
    type Output = Head<'a>;

    fn member<A: MapAccess<'a>>(
        &mut self,
        context: &Context<'a>,
        name: &'a str,
        map: &mut A,
    ) -> Result<(), A::Error> {
        match name {
            "name" => self.name = Some(map.next_value_seed(Text(context))?),
            "generation" => self.generation = Some(map.next_value_seed(Text(context))?),
            _ => {
                self.is_whole |= matches!(name, "models" | "compatible");
                map.next_value_seed(Skip(context))?;
            }
        }
        Ok(())
    }

    fn finish<E: Error>(self, _: &Context<'a>) -> Result<Head<'a>, E> {
        Ok(Head {
            name: self.name,
            generation: self.generation,
            is_whole: self.is_whole,
        })
    }
}
