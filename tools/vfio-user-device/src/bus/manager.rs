// SPDX-License-Identifier: GPL-2.0 OR MIT

//! Devices that come and go by calls.

use std::collections::HashMap;
use std::sync::{Arc, Weak};

use zbus::zvariant::{OwnedObjectPath, OwnedValue};

use super::error::Error;
use super::values::{params_in, text};
use super::{path, Shared};
use crate::registry::{DeviceName, Endpoint, NewDevice, SourceList};

/// The devices of the program.
pub(super) struct Manager(Weak<Shared>);

impl Manager {
    /// It does not keep what it is part of alive.
    pub(super) fn new(shared: &Arc<Shared>) -> Self {
        Self(Arc::downgrade(shared))
    }

    fn shared(&self) -> Result<Arc<Shared>, Error> {
        let ends = || Error::System("the program ends".to_string());
        self.0.upgrade().ok_or_else(ends)
    }
}

#[zbus::interface(name = "example.rust_vfio_mdev.Manager1")]
impl Manager {
    /// What can be migrated to here, as JSON.
    #[zbus(property(emits_changed_signal = "const"))]
    fn migration_information(&self) -> zbus::fdo::Result<String> {
        match self.shared() {
            Ok(shared) => Ok(shared.registry.information()),
            Err(error) => Err(zbus::fdo::Error::Failed(error.to_string())),
        }
    }

    /// Makes a device, whose socket is made at a path. `options` may have `Model` and `Version`, both strings. What `parameters`
    /// lack has its initial value.
    async fn add_device(
        &self,
        name: String,
        socket_path: String,
        parameters: HashMap<String, OwnedValue>,
        options: HashMap<String, OwnedValue>,
    ) -> Result<OwnedObjectPath, Error> {
        let shared = self.shared()?;
        let name: DeviceName = name.try_into()?;
        let (mut model, mut version) = (None, None);
        for (option, value) in options {
            let place = match option.as_str() {
                "Model" => &mut model,
                "Version" => &mut version,
                other => return Err(Error::Invalid(format!("there is no option {other}"))),
            };
            *place = Some(text(&option, &value)?);
        }
        shared.registry.add(NewDevice {
            name: name.clone(),
            model,
            version,
            params: params_in(parameters)?,
            endpoint: Endpoint::Path(socket_path.into()),
        })?;
        // Whoever is told the path finds the device there.
        shared.bring(&name).await?;
        Ok(path(&name))
    }

    /// Ends a device; with `force` even one that somebody uses.
    fn remove_device(&self, name: String, force: bool) -> Result<(), Error> {
        Ok(self.shared()?.registry.remove(&name, force)?)
    }

    /// Whether a source with this model and these parameters in effect can be migrated to here; why not, in the error.
    fn check(&self, model: String, parameters: HashMap<String, OwnedValue>) -> Result<(), Error> {
        let params = params_in(parameters)?;
        Ok(self
            .shared()?
            .registry
            .check(&SourceList { model, params })?)
    }
}
