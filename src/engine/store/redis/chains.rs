//! Records of what was done: chains of them, in each bucket one stream for all of its chains.

use std::collections::BTreeMap;

use redis::{Cmd, Value};

use super::super::commons::TRIMMED_A_CALL;
use super::super::{Bucket, ChainBatch, ChainPlace, ChainRecord, Chains, EntryId, chain_bucket};
use super::{Shared, reply, scripts};
use crate::engine::error::Result;

/// `<sequence> <hash>` of each chain.
fn places(value: Value) -> Result<BTreeMap<String, ChainPlace>> {
    let mut places = BTreeMap::new();
    let mut pairs = reply::list(value)?.into_iter();
    while let (Some(chain), Some(place)) = (pairs.next(), pairs.next()) {
        let place = reply::text(place)?;
        let parts = place.split_once(' ').and_then(|(sequence, hash)| Some((sequence.parse().ok()?, hash)));
        // One that is not readable is told as none of its records: whoever checks the chain finds that.
        let (sequence, hash) = parts.unwrap_or((0, &place));
        places.insert(reply::text(chain)?, ChainPlace { sequence, hash: hash.to_owned() });
    }
    Ok(places)
}

fn record(row: Value) -> Result<(EntryId, ChainRecord)> {
    let mut row = reply::list(row)?.into_iter();
    let (Some(id), Some(fields)) = (row.next(), row.next()) else { return Err(reply::unexpected("XRANGE")) };
    let fields = reply::list(fields)?;
    let field = |name| reply::field(&fields, name).cloned().map(reply::text).transpose();
    let record = match (field("r")?, field("h")?) {
        (Some(text), Some(hash)) => ChainRecord { text, hash, signature: field("s")? },
        _ => ChainRecord::default(),
    };
    Ok((reply::entry_id(&id)?, record))
}

/// Adds what pairs of one bucket say to what those of others said.
fn sum<T: std::str::FromStr + Copy + Default>(sums: &mut BTreeMap<String, T>, value: Value, add: impl Fn(T, T) -> T) -> Result<()> {
    let mut pairs = reply::list(value)?.into_iter();
    while let (Some(name), Some(number)) = (pairs.next(), pairs.next()) {
        let number = reply::text(number)?.parse().map_err(|_| reply::unexpected("HGETALL"))?;
        let known = sums.entry(reply::text(name)?).or_default();
        *known = add(*known, number);
    }
    Ok(())
}

impl Shared {
    /// See `Commons::append_records`.
    pub async fn append_records(&self, batch: &ChainBatch) -> Result<()> {
        batch.last()?;
        let bucket = chain_bucket(&batch.chain);
        let of_chains = |what| self.keys.of_chains(bucket, what);
        let keys = [self.keys.records(bucket), of_chains("heads"), of_chains("counts"), of_chains("times")];
        let mut append = scripts::call(&scripts::APPEND_RECORDS, &keys.each_ref().map(String::as_str));
        append.arg(&batch.chain).arg(batch.first).arg(batch.records.len()).arg(batch.counts.len());
        for record in &batch.records {
            append.arg(&record.text).arg(&record.hash).arg(record.signature.as_deref().unwrap_or_default());
        }
        for (name, amount) in &batch.counts {
            append.arg(name).arg(amount);
        }
        for (name, ms) in &batch.times {
            append.arg(name).arg(ms);
        }
        match self.at(bucket).query(append).await? {
            Value::Nil => Ok(()),
            head => Err(batch.refused(reply::text(head)?)),
        }
    }

    /// See `Commons::records`.
    pub async fn records(&self, bucket: Bucket, after: EntryId, to: EntryId, count: usize) -> Result<Vec<(EntryId, ChainRecord)>> {
        let mut range = redis::cmd("XRANGE");
        range.arg(self.keys.records(bucket)).arg(format!("({after}")).arg(to.to_string()).arg("COUNT").arg(count);
        reply::list(self.at(bucket).query(range).await?)?.into_iter().map(record).collect()
    }

    /// See `Commons::record_counts`.
    pub async fn record_counts(&self) -> Result<BTreeMap<Bucket, u64>> {
        let length = |bucket| {
            let mut length = redis::cmd("XLEN");
            length.arg(self.keys.records(bucket));
            length
        };
        let commands: Vec<Cmd> = Bucket::all().map(length).collect();
        let lengths = self.control.run(&commands).await?;
        let counts = Bucket::all().zip(lengths).map(|(bucket, length)| Ok((bucket, reply::count(&length)?)));
        counts.filter(|count| count.as_ref().map_or(true, |(_, count)| *count > 0)).collect()
    }

    /// See `Commons::chains`.
    pub async fn chains(&self, bucket: Bucket) -> Result<Chains> {
        let keys = [self.keys.of_chains(bucket, "heads"), self.keys.of_chains(bucket, "anchors")];
        let read = scripts::call(&scripts::CHAINS, &keys.each_ref().map(String::as_str));
        let mut parts = reply::list(self.at(bucket).query(read).await?)?.into_iter();
        let (Some(heads), Some(anchors)) = (parts.next(), parts.next()) else { return Err(reply::unexpected("chains.lua")) };
        Ok(Chains { heads: places(heads)?, anchors: places(anchors)? })
    }

    /// See `Commons::trim_records`.
    pub async fn trim_records(&self, bucket: Bucket, before_ms: u64, most: u64) -> Result<(u64, bool)> {
        let of_chains = |what| self.keys.of_chains(bucket, what);
        let keys = [self.keys.records(bucket), of_chains("heads"), of_chains("anchors"), of_chains("trimmed")];
        let mut trim = scripts::call(&scripts::TRIM_RECORDS, &keys.each_ref().map(String::as_str));
        trim.arg(before_ms).arg(most).arg(TRIMMED_A_CALL);
        let parts = reply::list(self.at(bucket).query(trim).await?)?;
        let [removed, more] = parts.as_slice() else { return Err(reply::unexpected("trim_records.lua")) };
        Ok((reply::count(removed)?, reply::int(more)? == 1))
    }

    /// See `Commons::counts`.
    pub async fn counts(&self) -> Result<(BTreeMap<String, i64>, BTreeMap<String, u64>)> {
        let read = |bucket, what| {
            let mut read = redis::cmd("HGETALL");
            read.arg(self.keys.of_chains(bucket, what));
            read
        };
        let commands: Vec<Cmd> = Bucket::all().flat_map(|bucket| [read(bucket, "counts"), read(bucket, "times")]).collect();
        let mut values = self.control.run(&commands).await?.into_iter();
        let (mut counts, mut times) = (BTreeMap::new(), BTreeMap::new());
        while let (Some(counted), Some(noted)) = (values.next(), values.next()) {
            sum(&mut counts, counted, i64::saturating_add)?;
            sum(&mut times, noted, u64::max)?;
        }
        Ok((counts, times))
    }
}
