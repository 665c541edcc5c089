//! The chart, rendered by the real `helm`: every flag changes what it says, and nothing unknown goes through.
//!
//! Owns: what `helm template` makes of values. Not here: that an API server accepts and runs the result (the harness in
//! `e2e/` installs the chart), and that the chart's CRDs equal `crds/` (`tests/crds.rs`).
//!
//! `helm` is looked for in the project's tool cache, where `make tools` puts it, and then in `PATH`. Where there is none
//! the tests say so and pass, unless `ORBWEAVER_REQUIRE_TOOLS` is set, as `make test` does: then they fail.

#[cfg(test)]
mod admission;
#[cfg(test)]
mod chart;
#[cfg(test)]
mod configuration;
mod flow;
#[cfg(test)]
mod monitoring;
#[cfg(test)]
mod rights;
#[cfg(test)]
mod roles;
#[cfg(test)]
mod values;
