//! What the server itself counts, because no layer sees it.

use crate::ending::{Lost, Over};

/// A client that gets no seat, for the sake of this limit.
pub(crate) fn refused(limit: &'static str) {
    #[cfg(feature = "metrics")]
    metrics::counter!("posthaste_server_refused_total", "limit" => limit).increment(1);
    #[cfg(not(feature = "metrics"))]
    let _ = limit;
}

/// A session that has ended.
pub(crate) fn ended(session: &Result<Over, Lost>) {
    #[cfg(feature = "metrics")]
    {
        let reason = session.as_ref().map_or_else(|_| "Lost".to_owned(), |over| format!("{:?}", over.reason));
        metrics::counter!("posthaste_server_sessions_total", "reason" => reason).increment(1);
    }
    #[cfg(not(feature = "metrics"))]
    let _ = session;
}
