//! Configuration: one TOML file, then the environment (`R58__SECTION__KEY`), unknown keys refused.
//!
//! `settings` is the shape with its defaults, `load` lays the layers over each other, `check` says what is
//! wrong in a file and on which line. Nothing here starts anything.

mod alerts;
mod broker;
mod check;
mod elsewhere;
mod load;
mod settings;

pub use alerts::{FleetAlertSettings, SmtpSettings, SmtpTlsSetting};
pub use check::{Problem, check_file, check_text};
pub use elsewhere::{elsewhere, is_here};
pub use load::{ConfigError, load, secret_in};
pub use settings::{
    BrokerSettings, DeviceSettings, FleetSettings, FleetTurnSettings, HostKind, InputSettings, LinkSettings, LogFormat,
    LogSettings, PressureSettings, ProgrammeSettings, SeatSettings, Settings, SfuSettings, TlsSettings, TurnSettings,
    WebrtcSettings,
};
