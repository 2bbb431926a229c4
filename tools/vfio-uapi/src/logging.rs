// SPDX-License-Identifier: GPL-2.0 OR MIT

//! DMA logging: VFIO_DEVICE_FEATURE_DMA_LOGGING_START, STOP and REPORT.

use crate::abi::{self, Bytes, UNMAPPED};
use crate::{Device, Result};

/// Most ranges that the kernel core takes: as many as fit a page.
pub const MOST_RANGES: usize = 256;

/// An argument of START.
#[derive(Debug, Clone)]
pub struct Logging<'a> {
    /// Granularity in bytes.
    pub page_size: u64,
    /// Start and length of each range in bytes; `None` passes an address where nothing is.
    pub ranges: Option<&'a [(u64, u64)]>,
    /// The number of ranges that the argument states.
    pub count: u32,
}

impl<'a> Logging<'a> {
    /// Pages of 4 KiB in `ranges`.
    pub fn of(ranges: &'a [(u64, u64)]) -> Self {
        Self {
            page_size: 4096,
            ranges: Some(ranges),
            count: ranges.len() as u32,
        }
    }
}

/// An argument of REPORT.
#[derive(Debug)]
pub struct Report<'a> {
    /// First byte.
    pub iova: u64,
    /// Bytes.
    pub length: u64,
    /// Bytes that a bit stands for.
    pub page_size: u64,
    /// One bit a page; `None` passes an address where nothing is.
    pub bitmap: Option<&'a mut [u64]>,
}

impl Device {
    /// START; returns the granularity that the driver chose.
    ///
    /// # Panics
    ///
    /// If it states more ranges than there are.
    pub fn start_logging(&self, logging: &Logging<'_>) -> Result<u64> {
        let list: Vec<[u64; 2]> = logging
            .ranges
            .unwrap_or(&[])
            .iter()
            .map(|range| [range.0, range.1])
            .collect();
        let address = match logging.ranges {
            Some(ranges) => {
                assert!(
                    logging.count as usize <= ranges.len() || logging.count as usize > MOST_RANGES
                );
                list.as_ptr() as u64
            }
            None => UNMAPPED as u64,
        };
        let mut control = Bytes::new()
            .long(logging.page_size)
            .word(logging.count)
            .word(0)
            .long(address);
        self.feature(
            abi::VFIO_DEVICE_FEATURE_SET | abi::VFIO_DEVICE_FEATURE_DMA_LOGGING_START,
            control.bytes_mut(),
        )?;
        Ok(control.long_at(0))
    }

    /// STOP.
    pub fn stop_logging(&self) -> Result<()> {
        self.feature(
            abi::VFIO_DEVICE_FEATURE_SET | abi::VFIO_DEVICE_FEATURE_DMA_LOGGING_STOP,
            &mut [],
        )
    }

    /// REPORT.
    ///
    /// # Panics
    ///
    /// If the bitmap has no room for what the kernel may write.
    pub fn report_logging(&self, report: Report<'_>) -> Result<()> {
        let address = match report.bitmap {
            Some(bitmap) => {
                // The kernel writes one bit for each started page of the range, and rounds up to a word.
                if report.page_size >= 4096 && report.iova.checked_add(report.length).is_some() {
                    let pages = report.length.div_ceil(report.page_size) + 1;
                    assert!(
                        pages.div_ceil(64) <= bitmap.len() as u64,
                        "a bitmap of {} words",
                        bitmap.len()
                    );
                }
                bitmap.as_mut_ptr() as u64
            }
            None => UNMAPPED as u64,
        };
        let mut argument = Bytes::new()
            .long(report.iova)
            .long(report.length)
            .long(report.page_size)
            .long(address);
        self.feature(
            abi::VFIO_DEVICE_FEATURE_GET | abi::VFIO_DEVICE_FEATURE_DMA_LOGGING_REPORT,
            argument.bytes_mut(),
        )
    }
}
