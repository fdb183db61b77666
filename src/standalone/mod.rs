//! The few platform endpoints an SDK needs to use this daemon with no platform around it.
