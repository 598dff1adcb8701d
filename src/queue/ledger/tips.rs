//! Up to which commits all servers have recorded a repository's history.

use std::collections::BTreeMap;

use tokio_postgres::types::Type;

use super::connection::{Connection, Parameter};
use super::{Destination, LedgerError, Session};
use crate::commit::Tip;
use crate::queue::Walked;
use crate::queue::outbox::{Parcel, SeenTip};
use crate::time::CommitTime;

/// How many tips are kept that others reach, the youngest: as in a repository's queue.
const MAX_COVERED_TIPS: i64 = 10_000;

/// Adds the tips of a parcel.
pub(super) fn put(tx: &Connection, destination: i64, parcel: &Parcel) -> Result<(), LedgerError> {
    if parcel.tips.is_empty() {
        return Ok(());
    }
    let id: Parameter = (&destination, Type::INT8);
    let scopes: BTreeMap<&str, &str> =
        parcel.scopes.iter().map(|(walked, scope)| (walked.name(), scope.as_str())).collect();
    let scopes = serde_json::to_string(&scopes).expect("text becomes JSON");
    tx.execute("UPDATE destination SET scopes = $2 WHERE id = $1", &[id.clone(), (&scopes, Type::TEXT)])?;
    // In one order, which all transactions keep.
    let tips: BTreeMap<(&str, &[u8]), &SeenTip> =
        parcel.tips.iter().map(|seen| ((seen.walked.name(), seen.tip.id.as_slice()), seen)).collect();
    let parameters: [Parameter; 5] = [
        id.clone(),
        (&tips.keys().map(|(walked, _)| *walked).collect::<Vec<_>>(), Type::TEXT_ARRAY),
        (&tips.keys().map(|(_, tip)| *tip).collect::<Vec<_>>(), Type::BYTEA_ARRAY),
        (&tips.values().map(|seen| seen.tip.time.seconds()).collect::<Vec<_>>(), Type::INT8_ARRAY),
        (&tips.values().map(|seen| seen.is_covered).collect::<Vec<_>>(), Type::BOOL_ARRAY),
    ];
    tx.execute(
        "INSERT INTO seen_tip SELECT $1, * FROM unnest($2::text[], $3::bytea[], $4::bigint[], $5::bool[]) \
         ON CONFLICT (destination, walked, id) DO UPDATE SET covered = true WHERE excluded.covered AND NOT seen_tip.covered",
        &parameters,
    )?;
    for walked in [Walked::Commits, Walked::States] {
        tx.execute(
            "DELETE FROM seen_tip WHERE destination = $1 AND walked = $2 AND covered AND time < (SELECT time FROM seen_tip \
             WHERE destination = $1 AND walked = $2 AND covered ORDER BY time DESC LIMIT 1 OFFSET $3)",
            &[id.clone(), (&walked.name(), Type::TEXT), (&MAX_COVERED_TIPS, Type::INT8)],
        )?;
    }
    Ok(())
}

impl Session {
    /// Returns what other servers have seen of a repository: what tips have been marked as seen for, and these tips.
    pub(crate) fn seen(&self, destination: &Destination) -> Result<Vec<(Walked, String, Vec<Tip>)>, LedgerError> {
        let Some(id) = self.id_of(destination)? else { return Ok(Vec::new()) };
        let scopes = self.connection.first("SELECT scopes FROM destination WHERE id = $1", &[(&id, Type::INT8)])?;
        let scopes: BTreeMap<String, String> =
            scopes.and_then(|row| serde_json::from_str(row.get("scopes")).ok()).unwrap_or_default();
        let mut seen = Vec::new();
        for walked in [Walked::Commits, Walked::States] {
            let Some(scope) = scopes.get(walked.name()) else { continue };
            let rows = self.connection.query(
                "SELECT id, time FROM seen_tip WHERE destination = $1 AND walked = $2",
                &[(&id, Type::INT8), (&walked.name(), Type::TEXT)],
            )?;
            let tip =
                |row: &tokio_postgres::Row| Tip { id: row.get("id"), time: CommitTime::from_seconds(row.get("time")) };
            seen.push((walked, scope.clone(), rows.iter().map(tip).collect()));
        }
        Ok(seen)
    }
}
