// SPDX-License-Identifier: GPL-2.0 OR MIT

//! `types`, `info` and `params`: what is here.

use migration::info::{MigrationInfo, ParameterList};
use migration::model::{ParamDef, Type};
use migration::value::Param;
use serde_json::json;
use vfio_migrate::error::{Error, Result};
use vfio_migrate::json::Bump;
use vfio_migrate::operand;
use vfio_migrate::sysfs::{in_effect, MdevType};
use vfio_migrate::text::Table;

use super::{count, Context};
use crate::output::complain;

/// `types`
pub fn types(context: &mut Context<'_>) -> Result<bool> {
    let types = context.sysfs.types()?;
    let instances = context.sysfs.instances()?;
    // Instances whose type cannot be told (they may be going away) are nobody's.
    let of_type: Vec<(String, String)> = instances
        .iter()
        .filter_map(|instance| {
            Some((
                instance.mdev_type().ok()?.full_name(),
                instance.uuid.to_string(),
            ))
        })
        .collect();
    let mut table = Table::new(&["TYPE", "FREE", "IN USE", "MODEL", "DESCRIPTION"]);
    let mut list = Vec::new();
    let mut lines = Vec::new();
    let mut problems: Vec<String> = Vec::new();
    for ty in &types {
        let arena = Bump::new();
        // One that cannot be read does not hide the others.
        let (models, problem) = match models(&arena, ty) {
            Ok(models) => (models, None),
            Err(error) => (Vec::new(), Some(error.to_string())),
        };
        let name = ty.full_name();
        let uuids: Vec<&String> = of_type
            .iter()
            .filter(|(of, _)| *of == name)
            .map(|(_, uuid)| uuid)
            .collect();
        let attribute = |file| ty.attribute(file).unwrap_or_default();
        if context.json {
            let free: Option<u64> = attribute("available_instances").parse().ok();
            list.push(json!({
                "parent": ty.parent,
                "type": ty.name,
                "name": attribute("name"),
                "device_api": attribute("device_api"),
                "available_instances": free,
                "models": models,
                "error": problem,
                "instances": uuids,
            }));
            problems.extend(problem);
            continue;
        }
        let models = match (&problem, models.is_empty()) {
            (Some(_), _) => "(unreadable)".to_string(),
            (None, true) => "(no migration interface)".to_string(),
            (None, false) => models.join(" "),
        };
        problems.extend(problem);
        let (free, description) = (attribute("available_instances"), attribute("name"));
        table.row([
            name.clone(),
            free,
            uuids.len().to_string(),
            models,
            description,
        ]);
        lines.extend(uuids.iter().map(|uuid| format!("{uuid}  {name}")));
    }
    for problem in &problems {
        complain(problem);
    }
    let answer = match problems.len() {
        0 => Ok(true),
        some => Err(Error::failed(format!(
            "{} of {} could not be read: see above",
            count(some, "type"),
            types.len()
        ))),
    };
    if context.json {
        context.document(&json!({ "types": list }));
        return answer;
    }
    if types.is_empty() {
        context.line(match context.sysfs.is_live() {
            true => "no mdev parent device is here: load a driver, as in `modprobe mdev_serial`",
            false => "no mdev parent device is in this copy of a sysfs: it has no class/mdev_bus, or an empty one",
        });
        return answer;
    }
    context.out.lines(table);
    if !lines.is_empty() {
        context.line("");
        context.line("Instances:");
        lines.iter().for_each(|line| context.line(line));
    }
    answer
}

/// The models that a type offers; none if it has not the interface.
fn models(arena: &Bump, ty: &MdevType) -> Result<Vec<String>> {
    if !ty.has_info()? {
        return Ok(Vec::new());
    }
    let info = ty.info(arena)?;
    let models = info.types.iter().map(|ty| ty.model.name.to_string());
    Ok(models.collect())
}

/// `info`
pub fn info(context: &mut Context<'_>, what: &str) -> Result<bool> {
    let arena = Bump::new();
    let destination = operand::destination(&arena, &context.sysfs, what)?;
    if context.json {
        context.out.json(MigrationInfo {
            generation: destination.generation,
            types: destination.types,
        });
        return Ok(true);
    }
    for (index, ty) in destination.types.iter().enumerate() {
        if index > 0 {
            context.line("");
        }
        describe(context, ty);
    }
    Ok(true)
}

/// Prints what is offered of a model.
fn describe(context: &mut Context<'_>, ty: &Type<'_>) {
    context.line(format_args!("model {}", ty.model.name));
    let mut table = Table::new(&[
        "PARAMETER",
        "TYPE",
        "ALLOWED",
        "INITIAL",
        "OFF",
        "DESCRIPTION",
    ]);
    for def in ty.model.params {
        table.row([
            def.name.to_string(),
            def.kind.to_string(),
            ty.allowed(def).to_string(),
            ty.init(def).to_string(),
            ty.off(def)
                .map_or_else(|| "-".to_string(), |off| off.to_string()),
            notes(def),
        ]);
    }
    context.out.lines(table);
    for version in ty.versions() {
        let values: Vec<String> = version.values.iter().map(Param::to_string).collect();
        let mark = if ty.init_version() == Some(version.name) {
            " (new instances)"
        } else {
            ""
        };
        context.line(format_args!(
            "version {}{mark}: {}",
            version.name,
            values.join(" ")
        ));
    }
}

/// The description and what else there is to know.
fn notes(def: &ParamDef<'_>) -> String {
    let mut notes = def.description.to_string();
    if def.runtime {
        notes.push_str(" [may change while the device is open]");
    }
    for required in def.requires {
        notes.push_str(&format!(
            " [requires {} {}]",
            required.param, required.allowed
        ));
    }
    notes.trim_start().to_string()
}

/// `params`
pub fn params(context: &mut Context<'_>, uuid: &str) -> Result<bool> {
    let arena = Bump::new();
    let instance = operand::instance(&context.sysfs, uuid)?;
    let ty = instance.offer(&arena)?;
    let values = instance.values(&arena, ty)?;
    if context.json {
        let list: Vec<Param<'_>> = in_effect(ty, &values).collect();
        context.out.json(ParameterList {
            model: ty.model.name,
            params: list.iter().copied(),
        });
        return Ok(true);
    }
    context.line(format_args!("type {}", instance.mdev_type()?.full_name()));
    context.line(format_args!("model {}", ty.model.name));
    if let Some(version) = instance.version() {
        context.line(format_args!("version {version}"));
    }
    let mut table = Table::new(&[
        "PARAMETER",
        "VALUE",
        "IN EFFECT",
        "ALLOWED",
        "OFF",
        "DESCRIPTION",
    ]);
    for (def, param) in ty.model.params.iter().zip(&values) {
        let effect = if def.off == Some(param.value) {
            "no"
        } else {
            "yes"
        };
        table.row([
            def.name.to_string(),
            param.value.to_string(),
            effect.to_string(),
            ty.allowed(def).to_string(),
            ty.off(def)
                .map_or_else(|| "-".to_string(), |off| off.to_string()),
            notes(def),
        ]);
    }
    context.out.lines(table);
    Ok(true)
}
