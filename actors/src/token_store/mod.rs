//! The one owner of what is durable: an answer means flushed. Reading order: `messages`, `actor`,
//! `operations`, `group_commit`, `records`.

pub mod actor;
#[cfg(test)]
mod fault_tests;
mod group_commit;
pub mod messages;
mod operations;
mod records;
#[cfg(test)]
mod tests;
