//! Fills a store: one connection, as the gateway itself stored it, is sealed anew under many subjects.
//! A million records take seconds so, rather than a million requests.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use claviger_actors::clock::SystemEntropy;
use claviger_actors::protocol::secret::Secret;
use claviger_actors::store::keyring::{Keyring, SealingKey};
use claviger_actors::store::sealed::Vault;
use claviger_actors::store::sled::SledStore;
use claviger_actors::store::{Expected, RecordKey, Table, TokenStore as _, Write};
use serde_json::json;

use crate::Fault;

/// Records written at a time.
const BATCH: usize = 2000;

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// The store's directory; no gateway may have it open.
    #[arg(long)]
    store: PathBuf,
    /// The id of the sealing key, which is the variable BENCH_KEY.
    #[arg(long)]
    key: String,
    /// The connection's profile.
    #[arg(long)]
    profile: String,
    /// The connection's subject.
    #[arg(long)]
    subject: String,
    /// The first of the new subjects, which are numbers.
    #[arg(long, default_value_t = 0)]
    from: u64,
    /// How many of them there are.
    #[arg(long)]
    count: u64,
}

pub(crate) fn run(arguments: &Arguments) -> Result<(), Fault> {
    let begun = Instant::now();
    let key = SealingKey::from_base64(&Secret::new(std::env::var("BENCH_KEY")?))?;
    let keyring = Keyring::new(&arguments.key, BTreeMap::from([(arguments.key.clone(), key)]))?;
    let vault = Vault::new(keyring, Arc::new(SystemEntropy));
    let runtime = tokio::runtime::Builder::new_current_thread().build()?;
    let place = |subject: &str| RecordKey(format!("{}\0{subject}", arguments.profile).into_bytes());
    runtime.block_on(async {
        let store = SledStore::open(&arguments.store)?;
        let original = place(&arguments.subject);
        let record = store.load(Table::Connection, original.clone()).await?;
        let record = record.ok_or_else(|| format!("the store has no record {original}"))?;
        let opened = vault.open(Table::Connection, &original, &record.value)?;
        let end = arguments.from + arguments.count;
        for first in (arguments.from..end).step_by(BATCH) {
            let subjects = first..end.min(first + BATCH as u64);
            let writes = subjects.map(|subject| {
                let key = place(&subject.to_string());
                let value = vault.seal(Table::Connection, &key, &opened.header, &opened.plaintext)?;
                Ok(Write { table: Table::Connection, key, value: Some(value), expected: Expected::Anything })
            });
            store.commit(writes.collect::<Result<_, Fault>>()?).await?;
        }
        Ok::<_, Fault>(())
    })?;
    let seconds = begun.elapsed().as_secs_f64();
    crate::print(&json!({ "records": arguments.count, "seconds": seconds }))
}
