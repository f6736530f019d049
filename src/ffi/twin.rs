//! The twin in the C ABI.

use std::sync::Arc;

use crate::host::soft::Twin;

/// A twin of the kernel's iommufd and vfio, and the VT-d hardware below it: opaque.
pub struct NvtdTwin {
    pub(super) twin: Arc<Twin>,
}
