//! Which bands the runtimes that a site states follow.

use super::band::Band;
use super::client::{Client, Runtime};

impl Runtime {
    /// Whether versions that are meant here follow the rule of `band`.
    pub fn covers(&self, band: &Band) -> bool {
        self.client() == band.client && self.overlaps(band)
    }

    /// As [`covers`](Self::covers); `docker` means the engine whatever it stores images with.
    pub(super) fn covers_on_node(&self, band: &Band) -> bool {
        let engine = self.client() == Client::Docker && band.client == Client::DockerContainerd;
        self.covers(band) || (engine && self.overlaps(band))
    }

    fn overlaps(&self, band: &Band) -> bool {
        let ((own_from, own_to), (from, to)) = (self.range_of_client(), band.range());
        own_from <= to && from <= own_to
    }
}
