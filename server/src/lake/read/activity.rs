//! Rows of logins, files, DNS, risky calls of the kernel and changes of an agent.

use picket_common::event::{
    AgentChange, Authentication, AuthenticationAction, DnsAction, DnsActivity, FileAction, FileActivity, KernelAction,
    KernelActivity, Protocol,
};

use super::{NULL, RowError, RowView};

impl RowView<'_> {
    pub(super) fn authentication(&self) -> Result<Authentication, RowError> {
        let source = match self.text("source_address")? {
            None => None,
            Some(text) => Some(text.parse().map_err(|_| self.error("source_address", "is not an address"))?),
        };
        Ok(Authentication {
            action: self.required_name("activity", AuthenticationAction::from_name)?,
            user_name: self.bytes("user_name")?,
            user_id: self.number("user_id")?,
            user_exists: self.flag("user_exists")?,
            success: self.required_flag("success")?,
            service: self.bytes("service")?,
            method: self.bytes_or_empty("method")?,
            acting_user_name: self.bytes_or_empty("acting_user_name")?,
            terminal: self.bytes_or_empty("terminal")?,
            command: self.bytes_or_empty("command")?,
            source,
            source_port: self.port("source_port")?,
            process: self.process("pid", "process_start_ns")?,
        })
    }

    pub(super) fn file_activity(&self) -> Result<FileActivity, RowError> {
        Ok(FileActivity {
            action: self.required_name("activity", FileAction::from_name)?,
            path: self.bytes("path")?,
            new_path: self.bytes_or_empty("new_path")?,
            is_directory: self.flag("is_directory")?,
            mode: self.number("mode")?,
            owner_id: self.number("owner_id")?,
            process: self.process("pid", "process_start_ns")?,
            executable: self.bytes_or_empty("executable")?,
            user_id: self.number("user_id")?,
        })
    }

    pub(super) fn dns_activity(&self) -> Result<DnsActivity, RowError> {
        let server = match self.text("server_address")? {
            None => None,
            Some(_) => Some(self.socket_address("server_address", "server_port", "server_flow_information")?),
        };
        let narrow = |column| -> Result<u16, RowError> { self.port(column)?.ok_or_else(|| self.error(column, NULL)) };
        Ok(DnsActivity {
            action: self.required_name("activity", DnsAction::from_name)?,
            name: self.bytes("query_name")?,
            query_type: narrow("query_type")?,
            response_code: self.port("response_code")?,
            answers: self.list("answers")?,
            answers_truncated: self.required_flag("answers_truncated")?,
            server,
            protocol: self.required_name("protocol", Protocol::from_name)?,
            transaction_id: narrow("transaction_id")?,
            process: self.process("pid", "process_start_ns")?,
            executable: self.bytes_or_empty("executable")?,
            user_id: self.number("user_id")?,
            duration_ns: self.count("duration_ns")?,
        })
    }

    pub(super) fn kernel_activity(&self) -> Result<KernelActivity, RowError> {
        Ok(KernelActivity {
            action: self.required_name("activity", KernelAction::from_name)?,
            object: self.bytes_or_empty("object")?,
            value: self.count("value")?,
            target: self.process("target_pid", "target_start_ns")?,
            success: self.flag("success")?,
            process: self.process("pid", "process_start_ns")?,
            executable: self.bytes_or_empty("executable")?,
            user_id: self.number("user_id")?,
        })
    }

    pub(super) fn agent_change(&self) -> Result<AgentChange, RowError> {
        Ok(AgentChange {
            subject: self.bytes("subject")?,
            before: self.bytes_or_empty("before")?,
            after: self.bytes_or_empty("after")?,
            reason: self.bytes_or_empty("reason")?,
        })
    }
}
