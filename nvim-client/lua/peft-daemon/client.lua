-- The language client: starts `peft-daemon lsp`, keeps its status, and tells it what no document shows.

local config = require("peft-daemon.config")

local M = {}

M.NAME = "peft_daemon"
M.METHOD = "textDocument/inlineCompletion"

---@class peft_daemon.Status
---@field state string
---@field adapter? string
---@field message? string
---@field off? { uri: string, why: string }[]

local statuses = {} ---@type table<integer, peft_daemon.Status> by client
local told = {} ---@type table<string, true>

---Show a message, once in this Neovim.
---@param text string
---@param level? integer
function M.tell_once(text, level)
  if not told[text] then
    told[text] = true
    vim.notify("peft-daemon: " .. text, level or vim.log.levels.WARN)
  end
end

---Where the command is: in PATH, else where pipx and `uv tool` put commands, which a Neovim that was not started from a
---shell has not in its PATH.
---@return string? path
function M.executable()
  local command = config.options.cmd[1]
  local path = vim.fn.exepath(command)
  if path == "" and not command:find("[/\\]") then
    path = vim.fn.exepath(vim.fs.joinpath(vim.fn.expand("~/.local/bin"), command))
  end
  return path ~= "" and path or nil
end

---What to do where the command is missing.
---@return string
function M.missing()
  return table.concat({
    ("the command `%s` was not found."):format(config.options.cmd[1]),
    "Install it (`pipx install peft-daemon`, then `peft-daemon setup`),",
    'or name it: require("peft-daemon").setup({ cmd = { "/path/to/peft-daemon", "lsp" } }).',
    "`:checkhealth peft-daemon` looks again.",
  }, " ")
end

---The client of a buffer.
---@param buffer? integer
---@return vim.lsp.Client?
function M.of(buffer)
  return vim.lsp.get_clients({ bufnr = buffer or 0, name = M.NAME })[1]
end

---What the server of a buffer said last.
---@param buffer integer
---@return peft_daemon.Status?
function M.status(buffer)
  local client = M.of(buffer)
  return client and statuses[client.id]
end

---Why there are no suggestions in a buffer, if the server said so.
---@param buffer integer
---@return string?
function M.why_off(buffer)
  local uri, status = vim.uri_from_bufnr(buffer), M.status(buffer)
  for _, document in ipairs(status and status.off or {}) do
    if document.uri == uri then
      return document.why
    end
  end
end

---Tell the server where the cursor is, so that the model reads ahead there.
---@param method string
---@return boolean sent
function M.notify_position(method)
  local client = M.of()
  if not client then
    return false
  end
  local here = vim.lsp.util.make_position_params(0, client.offset_encoding)
  return client:notify(method, { uri = here.textDocument.uri, position = here.position })
end

---Run one of the server's commands and pass on its answer; a failure is shown.
---@param command string
---@param arguments table
---@param on_answer? fun(answer: any)
function M.execute(command, arguments, on_answer)
  local client = M.of()
  if not client then
    M.explain_absence()
    return
  end
  client:request("workspace/executeCommand", { command = command, arguments = arguments }, function(failed, answer)
    if failed then
      vim.notify("peft-daemon: " .. failed.message, vim.log.levels.WARN)
    elseif on_answer then
      on_answer(answer)
    end
  end, 0)
end

---Say why no server is attached to this buffer.
function M.explain_absence()
  if not M.executable() then
    vim.notify("peft-daemon: " .. M.missing(), vim.log.levels.WARN)
  elseif vim.bo.buftype ~= "" or vim.bo.filetype == "" then
    vim.notify("peft-daemon: it runs in files that have a file type (:set filetype?)", vim.log.levels.WARN)
  else
    vim.notify("peft-daemon: it is not attached here; see `:checkhealth peft-daemon`", vim.log.levels.WARN)
  end
end

---Change the server's settings in this Neovim.
---@param changes table
function M.change_settings(changes)
  config.options.settings = vim.tbl_extend("force", config.options.settings, changes)
  for _, client in ipairs(vim.lsp.get_clients({ name = M.NAME })) do
    client.settings = { ["peft-daemon"] = config.options.settings }
    client:notify("workspace/didChangeConfiguration", { settings = client.settings })
  end
end

---@param received peft_daemon.Status
---@param client_id integer
---@param on_loaded fun()
local function take_status(received, client_id, on_loaded)
  local before = statuses[client_id]
  statuses[client_id] = received
  vim.api.nvim_exec_autocmds("User", { pattern = "PeftDaemonStatus", modeline = false })
  vim.cmd.redrawstatus()
  if before and before.state == "loading" and received.state == "idle" then
    on_loaded()
  end
end

---@param client vim.lsp.Client
local function on_attach(client)
  -- Neovim 0.12 shows inline completions by itself where the user has enabled that for all servers. These would be
  -- shown twice.
  if vim.lsp.inline_completion then
    pcall(vim.lsp.inline_completion.enable, false, { client_id = client.id })
  end
end

---@param code integer
---@param signal integer
---@param client_id integer
local function on_exit(code, signal, client_id)
  statuses[client_id] = nil
  if code ~= 0 and signal == 0 and vim.v.exiting == vim.NIL then
    vim.schedule(function()
      M.tell_once(("the language server ended with code %d; see `:checkhealth peft-daemon`"):format(code))
    end)
  end
end

---Have the server run in every file from now on.
---@param on_more fun(more: { uri: string }) what is shown has grown
---@param on_loaded fun() the model can answer now
function M.enable(on_more, on_loaded)
  local options = config.options
  local path = M.executable()
  local command = vim.list_slice(options.cmd)
  command[1] = path or command[1]
  vim.lsp.config(M.NAME, {
    cmd = command,
    filetypes = options.filetypes,
    root_markers = options.root_markers,
    -- Neovim 0.11 does not announce it; its own completion menu would insert the first word only.
    capabilities = { textDocument = { inlineCompletion = { dynamicRegistration = false } } },
    settings = { ["peft-daemon"] = options.settings },
    on_attach = on_attach,
    on_exit = on_exit,
    handlers = {
      ["peft-daemon/status"] = function(_, status, context)
        take_status(status, context.client_id, on_loaded)
      end,
      ["peft-daemon/more"] = function(_, more)
        on_more(more)
      end,
    },
  })
  vim.lsp.enable(M.NAME)
end

return M
