//! Tests of the spool as a whole. Those of single parts stand with the parts.

mod bench;
mod contract;
mod damage;
mod examination;
mod failure;
mod model;
mod support;
