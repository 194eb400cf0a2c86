//! Which of a host's engines a task runs on.
//!
//! A host offers an engine for each profile, and one more for each further backend of inference that it has. What each
//! can do was measured when the host started, and is the host's own word until a receipt is checked.
//!
//! An engine *suits* a job when the profile is the job's, its results are of the job's class or a stronger one, it infers on
//! a device of the kind that is asked for, and that device has the memory that is asked for. A job that asks for a GPU has
//! no engine on a host without one: it is never run on the processor instead.
//!
//! Of the engines that suit, a task takes
//! 1. the one of its shard's earlier executions, since the results of no other can be compared with theirs;
//! 2. in class `exact`, and when it has no models and asks for no device: the first as offered, which is the one whose bits
//!    are pinned;
//! 3. otherwise the fastest as measured; of equally fast ones the first.

use std::fmt;

use registry::{
    device::{Device, DeviceAsk, DeviceError, DeviceKind},
    id::EngineFingerprint,
    job::{Class, JobSpec, Profile, TaskTemplate},
};
use serde::{Deserialize, Serialize};

/// Engines that one host may offer.
pub const ENGINES_MAX: usize = 16;

/// One engine of a host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EngineOffer {
    /// The conditions under which its results are reproducible.
    pub fingerprint: EngineFingerprint,
    /// What its results may depend on.
    pub profile: Profile,
    /// The strongest class that its results have.
    pub class: Class,
    /// What it infers on; none when its bits depend on no device, and then it is the processor.
    pub device: Option<Device>,
    /// Memory in bytes that the device has for models; 0 when that was not measured.
    pub device_memory_bytes: u64,
    /// What the device does, in millions of floating-point operations a second; 0 when that was not measured.
    pub mflops: u64,
}

impl EngineOffer {
    /// An engine that infers on the processor, if at all, whose results are equal everywhere.
    pub const fn exact(fingerprint: EngineFingerprint, profile: Profile) -> Self {
        Self { fingerprint, profile, class: Class::Exact, device: None, device_memory_bytes: 0, mflops: 0 }
    }

    fn is_on(&self, kind: DeviceKind) -> bool {
        self.device.as_ref().is_some_and(|device| device.kind == kind)
    }
}

/// The engines of a host; what most jobs take comes first.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Engines(pub Vec<EngineOffer>);

/// What a job asks of the engine that its tasks run on.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct EngineAsk {
    /// What its results may depend on.
    pub profile: Profile,
    /// Which of its executions must agree.
    pub class: Class,
    /// What its models run on.
    pub device: DeviceAsk,
    /// Memory in bytes that this device has at least.
    pub device_memory_bytes_min: u64,
    /// Whether its tasks bring models.
    pub infers: bool,
}

impl From<&JobSpec> for EngineAsk {
    fn from(spec: &JobSpec) -> Self {
        Self {
            profile: spec.profile,
            class: spec.class,
            device: spec.device,
            device_memory_bytes_min: spec.device_memory_bytes_min,
            infers: !spec.models.is_empty(),
        }
    }
}

impl From<&TaskTemplate> for EngineAsk {
    fn from(template: &TaskTemplate) -> Self {
        Self {
            profile: template.profile,
            class: template.class,
            device: template.device,
            device_memory_bytes_min: template.device_memory_bytes_min,
            infers: !template.models.is_empty(),
        }
    }
}

/// What a host, or one of its engines, lacks for a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Lack {
    /// No engine of the profile.
    Profile {
        /// As asked.
        asked: Profile,
    },
    /// No device of the kind.
    Device {
        /// As asked.
        asked: DeviceAsk,
    },
    /// Such a device, but its results are not as comparable as they have to be.
    Class {
        /// As asked.
        asked: Class,
        /// The strongest that it has.
        offered: Class,
    },
    /// Such a device, with too little memory.
    DeviceMemory {
        /// As asked, in bytes.
        asked: u64,
        /// The most that it has, in bytes.
        offered: u64,
    },
}

/// A phrase that goes on after the host.
impl fmt::Display for Lack {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Profile { asked } => write!(f, "has no engine of profile {}", asked.word()),
            Self::Device { asked: DeviceAsk::Gpu } => f.write_str("has no GPU, which the job asks for"),
            Self::Device { asked } => write!(f, "has no engine that infers on device {}", asked.word()),
            Self::Class { asked, offered } => {
                write!(f, "gives results of class {} there, and the job asks for {}", offered.word(), asked.word())
            }
            Self::DeviceMemory { asked, offered } => {
                write!(f, "has a device with {offered} bytes of memory, of {asked} asked")
            }
        }
    }
}

impl EngineAsk {
    /// Whether an engine suits.
    pub fn suits(&self, engine: &EngineOffer) -> bool {
        self.keeps(engine).all(|kept| kept)
    }

    /// What is lacking when none of these engines suits: the rule that the most of them keep is told last.
    pub fn lack(&self, engines: &[EngineOffer]) -> Option<Lack> {
        let kept = |rules: usize| engines.iter().filter(move |engine| self.keeps(engine).take(rules).all(|kept| kept));
        if kept(4).next().is_some() {
            return None;
        }
        Some(if kept(1).next().is_none() {
            Lack::Profile { asked: self.profile }
        } else if kept(2).next().is_none() {
            Lack::Device { asked: self.device }
        } else if let Some(offered) = kept(2).map(|engine| engine.class).min().filter(|offered| *offered > self.class) {
            Lack::Class { asked: self.class, offered }
        } else {
            let offered = kept(3).map(|engine| engine.device_memory_bytes).max().unwrap_or(0);
            Lack::DeviceMemory { asked: self.device_memory_bytes_min, offered }
        })
    }

    /// The rules, and whether an engine keeps each.
    fn keeps(&self, engine: &EngineOffer) -> impl Iterator<Item = bool> {
        let device = match &engine.device {
            Some(device) => self.device.takes(device.kind),
            None => self.device != DeviceAsk::Gpu,
        };
        let memory = engine.device_memory_bytes >= self.device_memory_bytes_min;
        [engine.profile == self.profile, device, engine.class <= self.class, memory].into_iter()
    }

    /// Whether the faster of two engines that suit is the better one.
    fn is_for_speed(&self) -> bool {
        self.class != Class::Exact && (self.infers || !self.device.is_any())
    }
}

impl Engines {
    /// An exact engine for each profile and nothing else.
    pub fn plain(native: EngineFingerprint, portable: EngineFingerprint) -> Self {
        Self(vec![EngineOffer::exact(native, Profile::Native), EngineOffer::exact(portable, Profile::Portable)])
    }

    /// The engine with this fingerprint.
    pub fn get(&self, fingerprint: EngineFingerprint) -> Option<&EngineOffer> {
        self.0.iter().find(|engine| engine.fingerprint == fingerprint)
    }

    /// The fingerprints of all.
    pub fn fingerprints(&self) -> impl Iterator<Item = EngineFingerprint> {
        self.0.iter().map(|engine| engine.fingerprint)
    }

    /// Whether one of them infers on such a device.
    pub fn has(&self, kind: DeviceKind) -> bool {
        self.0.iter().any(|engine| engine.is_on(kind))
    }

    /// The best of those that suit and may be taken.
    pub fn best(&self, ask: &EngineAsk, may: impl Fn(EngineFingerprint) -> bool) -> Option<&EngineOffer> {
        let mut best: Option<&EngineOffer> = None;
        for engine in self.0.iter().filter(|engine| ask.suits(engine) && may(engine.fingerprint)) {
            if best.is_none_or(|best| ask.is_for_speed() && engine.mflops > best.mflops) {
                best = Some(engine);
            }
        }
        best
    }

    /// Whether an offer of these makes sense.
    ///
    /// # Errors
    /// Names the first rule that is broken.
    pub fn check(&self) -> Result<(), EnginesError> {
        if !(1..=ENGINES_MAX).contains(&self.0.len()) {
            return Err(EnginesError::Number { engines: self.0.len() });
        }
        for (at, engine) in self.0.iter().enumerate() {
            if self.0[..at].iter().any(|other| other.fingerprint == engine.fingerprint) {
                return Err(EnginesError::Twice { fingerprint: engine.fingerprint });
            }
            if let Some(device) = &engine.device {
                device.check()?;
            }
            if engine.is_on(DeviceKind::Gpu) && (engine.class == Class::Exact || engine.profile == Profile::Portable) {
                return Err(EnginesError::ExactGpu);
            }
        }
        Ok(())
    }
}

/// Why a host's engines are not taken for what it says.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EnginesError {
    /// None, or too many.
    #[error("number of engines is {engines}, outside the bounds of 1 to {ENGINES_MAX}")]
    Number {
        /// As offered.
        engines: usize,
    },
    /// One engine twice.
    #[error("engine {} is offered twice", fingerprint.short())]
    Twice {
        /// Which.
        fingerprint: EngineFingerprint,
    },
    /// A device that cannot be shown.
    #[error("{0}")]
    Device(#[from] DeviceError),
    /// A GPU whose results are said to be equal everywhere.
    #[error("an engine on a GPU is offered for class exact or profile portable: its results are tolerant at best")]
    ExactGpu,
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn fingerprint(byte: u8) -> EngineFingerprint {
        EngineFingerprint([byte; 32])
    }

    /// A device of 8 GiB.
    pub(crate) fn on(kind: DeviceKind, byte: u8, class: Class, mflops: u64) -> EngineOffer {
        let provider = if kind == DeviceKind::Gpu { "cuda" } else { "tract" };
        let device = Device { kind, provider: provider.into(), name: format!("device {byte}") };
        EngineOffer {
            class,
            device: Some(device),
            device_memory_bytes: 8 << 30,
            mflops,
            ..EngineOffer::exact(fingerprint(byte), Profile::Native)
        }
    }

    /// What a host with a GPU offers: tract, the portable engine, a library on the processor, the GPU.
    pub(crate) fn rich() -> Engines {
        Engines(vec![
            on(DeviceKind::Cpu, 1, Class::Exact, 10_000),
            EngineOffer::exact(fingerprint(2), Profile::Portable),
            on(DeviceKind::Cpu, 3, Class::Homogeneous, 40_000),
            on(DeviceKind::Gpu, 4, Class::Tolerant, 9_000_000),
        ])
    }

    fn takes(ask: EngineAsk) -> Option<u8> {
        rich().best(&ask, |_| true).map(|engine| engine.fingerprint.0[0])
    }

    #[test]
    fn each_ask_has_its_engine() {
        let plain = EngineAsk::default();
        let infers = EngineAsk { infers: true, ..plain };
        assert_eq!((takes(plain), takes(infers)), (Some(1), Some(1)), "class exact takes the pinned engine");
        assert_eq!(takes(EngineAsk { profile: Profile::Portable, ..infers }), Some(2));
        assert_eq!(takes(EngineAsk { class: Class::Homogeneous, ..infers }), Some(3), "the fastest of its class");
        assert_eq!(takes(EngineAsk { class: Class::Tolerant, ..infers }), Some(4), "the fastest of all");
        assert_eq!(takes(EngineAsk { class: Class::Tolerant, ..plain }), Some(1), "without models as ever");
        let tolerant = EngineAsk { class: Class::Tolerant, ..infers };
        assert_eq!(takes(EngineAsk { device: DeviceAsk::Cpu, ..tolerant }), Some(3));
        assert_eq!(takes(EngineAsk { device: DeviceAsk::Cpu, ..infers }), Some(1));
        assert_eq!(takes(EngineAsk { device: DeviceAsk::Gpu, ..tolerant }), Some(4));
        assert_eq!(takes(EngineAsk { device: DeviceAsk::Gpu, infers: false, ..tolerant }), Some(4));
        assert_eq!(takes(EngineAsk { device: DeviceAsk::Cpu, profile: Profile::Portable, ..infers }), Some(2));
    }

    #[test]
    fn what_is_lacking_is_told_with_what_was_asked_and_offered() {
        let tolerant = EngineAsk { class: Class::Tolerant, infers: true, ..EngineAsk::default() };
        let gpu = EngineAsk { device: DeviceAsk::Gpu, ..tolerant };
        let said = |ask: EngineAsk, engines: &Engines| ask.lack(&engines.0).map(|lack| lack.to_string());
        let plain = Engines::plain(fingerprint(1), fingerprint(2));
        assert_eq!(said(gpu, &plain).unwrap(), "has no GPU, which the job asks for");
        assert_eq!(said(gpu, &rich()), None);
        let large = EngineAsk { device_memory_bytes_min: 9 << 30, ..gpu };
        assert_eq!(said(large, &rich()).unwrap(), "has a device with 8589934592 bytes of memory, of 9663676416 asked");
        let same = EngineAsk { class: Class::Homogeneous, ..gpu };
        assert_eq!(
            said(same, &rich()).unwrap(),
            "gives results of class tolerant there, and the job asks for homogeneous"
        );
        let native = Engines(rich().0[..1].to_vec());
        let portable = EngineAsk { profile: Profile::Portable, ..tolerant };
        assert_eq!(said(portable, &native).unwrap(), "has no engine of profile portable");
    }

    #[test]
    fn an_offer_that_makes_no_sense_is_refused_by_name() {
        rich().check().unwrap();
        assert_eq!(Engines::default().check(), Err(EnginesError::Number { engines: 0 }));
        let plain = |byte: u8| EngineOffer::exact(fingerprint(byte), Profile::Native);
        assert_eq!(Engines((0..17).map(plain).collect()).check(), Err(EnginesError::Number { engines: 17 }));
        let twice = Engines(vec![plain(1), plain(2), plain(1)]).check().unwrap_err().to_string();
        assert!(twice.contains("offered twice"), "{twice}");
        let exact = Engines(vec![on(DeviceKind::Gpu, 1, Class::Exact, 1)]);
        assert_eq!(exact.check(), Err(EnginesError::ExactGpu));
        let mut odd = on(DeviceKind::Gpu, 1, Class::Tolerant, 1);
        odd.device.as_mut().unwrap().name = "a\nb".into();
        assert!(matches!(Engines(vec![odd]).check(), Err(EnginesError::Device(_))));
    }
}
