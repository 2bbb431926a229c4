// SPDX-License-Identifier: GPL-2.0 OR MIT

//! A device as an object on the bus.

use std::collections::HashMap;
use std::sync::Arc;

use zbus::fdo;
use zbus::object_server::{InterfaceRef, SignalEmitter};
use zbus::zvariant::OwnedValue;

use super::carrier::Carrier;
use super::error::{of_property, Error};
use super::values::{params_in, values_out};
use crate::model::Owner;
use crate::registry::{DeviceInfo, SourceList};

/// Most bytes of a state that one message carries; a message has no more than twice as many.
const MAX_STATE: usize = 32 << 20;

/// A device.
pub struct Device {
    carrier: Arc<Carrier>,
    /// What others were told last.
    told: Option<Told>,
}

/// What can change about a device.
#[derive(Clone, PartialEq)]
struct Told {
    info: DeviceInfo,
    is_frozen: bool,
}

impl Device {
    pub(super) fn new(carrier: Arc<Carrier>) -> Self {
        Self {
            carrier,
            told: None,
        }
    }

    fn info(&self) -> fdo::Result<DeviceInfo> {
        let registry = self.carrier.registry();
        registry
            .info(self.carrier.name().as_str())
            .map_err(of_property)
    }
}

#[zbus::interface(name = "example.rust_vfio_mdev.Device1")]
impl Device {
    /// Its name.
    #[zbus(property(emits_changed_signal = "const"))]
    fn name(&self) -> String {
        self.carrier.name().to_string()
    }

    /// Its device model.
    #[zbus(property(emits_changed_signal = "const"))]
    fn model(&self) -> fdo::Result<String> {
        Ok(self.info()?.model)
    }

    /// Where its socket is; empty if somebody else made it.
    #[zbus(property(emits_changed_signal = "const"))]
    fn socket_path(&self) -> fdo::Result<String> {
        let path = self.info()?.socket;
        Ok(path.map_or(String::new(), |path| path.display().to_string()))
    }

    /// The version whose values its parameters have; empty if they are those of none.
    #[zbus(property)]
    fn version(&self) -> fdo::Result<String> {
        Ok(self.info()?.version.unwrap_or_default())
    }

    /// Its migration parameters.
    #[zbus(property)]
    fn parameters(&self) -> fdo::Result<HashMap<String, OwnedValue>> {
        Ok(values_out(self.info()?.params.iter()))
    }

    /// Its migration parameter list: the parameters that are not off.
    #[zbus(property)]
    fn parameters_in_effect(&self) -> fdo::Result<HashMap<String, OwnedValue>> {
        let params = self.info()?.params;
        Ok(values_out(params.iter().filter(|param| param.in_effect)))
    }

    /// Whether a vfio-user client is connected.
    #[zbus(property)]
    fn has_client(&self) -> fdo::Result<bool> {
        Ok(self.info()?.has_client)
    }

    /// Its migration state.
    #[zbus(property)]
    fn state(&self) -> fdo::Result<String> {
        Ok(self.info()?.state.name().to_string())
    }

    /// Who has taken it out of its running state: client, remote, or nobody (empty).
    #[zbus(property)]
    fn owner(&self) -> fdo::Result<String> {
        let owner = match self.info()?.owner {
            Some(Owner::Client) => "client",
            Some(Owner::Remote) => "remote",
            None => "",
        };
        Ok(owner.to_string())
    }

    /// Whether it stands still, and waits to be saved or thawed.
    #[zbus(property)]
    fn frozen(&self) -> bool {
        self.carrier.is_frozen()
    }

    /// Why migrating it was refused last; empty if it was not.
    #[zbus(property)]
    fn last_refusal(&self) -> fdo::Result<String> {
        Ok(self.info()?.refusal)
    }

    /// Saves it: the stream of the migration protocol. It runs on.
    fn save(&self) -> Result<Vec<u8>, Error> {
        self.carrier.save(MAX_STATE)
    }

    /// Loads it, and lets it run.
    fn load(&self, state: Vec<u8>) -> Result<(), Error> {
        self.carrier.load(&state)
    }

    /// Makes it the destination of a source with this model and these parameters in effect.
    fn prepare(&self, model: String, parameters: HashMap<String, OwnedValue>) -> Result<(), Error> {
        let params = params_in(parameters)?;
        let registry = self.carrier.registry();
        registry.prepare(self.carrier.name().as_str(), SourceList { model, params })?;
        Ok(())
    }

    /// Registers as after power-on. A disk keeps its contents.
    fn reset(&self) -> Result<(), Error> {
        let registry = self.carrier.registry();
        Ok(registry.reset(self.carrier.name().as_str())?)
    }

    /// Makes it stand still until it is saved or thawed, for QEMU to save it by `org.qemu.VMState1`. What QEMU's monitor is to be
    /// told then, in the words of its human monitor.
    fn freeze(&self) -> Result<Vec<String>, Error> {
        self.carrier.freeze()
    }

    /// Lets it run again.
    fn thaw(&self) -> Result<(), Error> {
        self.carrier.thaw()
    }

    /// What QEMU's monitor is to be told for its copy of the configuration space to be as the device's: the device is at this
    /// address in the guest, and port 0xcf8 has that value.
    fn replay(&self, address: String, selector: u32) -> Result<Vec<String>, Error> {
        let address = address.parse();
        let address =
            address.map_err(|error: crate::replay::NoAddress| Error::Invalid(error.to_string()))?;
        self.carrier.replay(address, selector)
    }
}

/// Tells whoever listens what has changed of a device.
pub(super) async fn refresh(object: &InterfaceRef<Device>) -> zbus::Result<()> {
    let emitter = object.signal_emitter();
    let mut device = object.get_mut().await;
    // One that has gone is taken from the bus soon.
    let Ok(info) = device.info() else {
        return Ok(());
    };
    let had_client = device
        .told
        .as_ref()
        .is_some_and(|told| told.info.has_client);
    if had_client && !info.has_client {
        // Nobody is left to thaw it for. What was loaded has been put into effect; the error would be that it is gone.
        let _ = device.carrier.thaw();
    }
    let now = Told {
        info,
        is_frozen: device.carrier.is_frozen(),
    };
    let Some(before) = device.told.replace(now.clone()) else {
        return Ok(());
    };
    tell(&device, emitter, &before, &now).await
}

async fn tell(
    device: &Device,
    emitter: &SignalEmitter<'static>,
    before: &Told,
    now: &Told,
) -> zbus::Result<()> {
    let (old, new) = (&before.info, &now.info);
    if old.version != new.version {
        device.version_changed(emitter).await?;
    }
    if old.params != new.params {
        device.parameters_changed(emitter).await?;
        device.parameters_in_effect_changed(emitter).await?;
    }
    if old.has_client != new.has_client {
        device.has_client_changed(emitter).await?;
    }
    if old.state != new.state {
        device.state_changed(emitter).await?;
    }
    if old.owner != new.owner {
        device.owner_changed(emitter).await?;
    }
    if before.is_frozen != now.is_frozen {
        device.frozen_changed(emitter).await?;
    }
    if old.refusal != new.refusal {
        device.last_refusal_changed(emitter).await?;
    }
    Ok(())
}
