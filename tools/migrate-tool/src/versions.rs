// SPDX-License-Identifier: GPL-2.0 OR MIT

//! Versions: named bundles of parameter values.

use anyhow::{Context, Result};
use guest_tests::ktap::Suite;
use guest_tests::v2_api::check::equal;
use serde_json::Value as Json;

use crate::host::{any, get, info, set, MODEL};

pub fn add(suite: &mut Suite) {
    tests!(
        suite,
        writing_a_version_sets_its_values_and_no_others,
        other_values_than_those_of_a_version_read_custom,
        writing_the_model_chooses_the_initial_version,
    );
}

fn writing_a_version_sets_its_values_and_no_others() -> Result<()> {
    let instance = any()?;
    set(&instance, "num-ports", "4").context("num-ports")?;
    set(&instance, "fifo-depth", "64").context("fifo-depth")?;
    let info = info(&instance)?;
    let versions = info["models"][MODEL]["versions"]
        .as_object()
        .context("versions")?;
    for (name, bundle) in versions {
        set(&instance, "version", name).with_context(|| name.clone())?;
        equal("version", get(&instance, "version")?, name.clone())?;
        for (param, value) in bundle.as_object().context("bundle")? {
            let wanted = match value {
                Json::Bool(true) => "on".to_string(),
                Json::Bool(false) => "off".to_string(),
                value => value.to_string(),
            };
            equal(format!("{param} of {name}"), get(&instance, param)?, wanted)?;
        }
        equal("num-ports", get(&instance, "num-ports")?, "4".to_string())?;
        equal(
            "fifo-depth",
            get(&instance, "fifo-depth")?,
            "64".to_string(),
        )?;
    }
    Ok(())
}

fn other_values_than_those_of_a_version_read_custom() -> Result<()> {
    let instance = any()?;
    set(&instance, "version", "v2").context("v2")?;
    set(&instance, "msi", "off").context("msi")?;
    equal("version", get(&instance, "version")?, "custom".to_string())?;
    set(&instance, "compact-state", "off").context("compact-state")?;
    equal("version", get(&instance, "version")?, "v1".to_string())
}

fn writing_the_model_chooses_the_initial_version() -> Result<()> {
    let instance = any()?;
    set(&instance, "version", "v1").context("v1")?;
    set(&instance, "device_model", MODEL).context("device_model")?;
    let init = info(&instance)?["models"][MODEL]["init_version"].clone();
    equal("version", Json::String(get(&instance, "version")?), init)
}
