-- peft-daemon for Neovim: completions by a small model on this machine, as ghost text. See :help peft-daemon.

local client = require("peft-daemon.client")
local config = require("peft-daemon.config")
local ghost = require("peft-daemon.ghost")
local keys = require("peft-daemon.keys")
local next_edit = require("peft-daemon.next_edit")
local suggestion = require("peft-daemon.suggestion")

local M = {}

local is_set_up = false

local function watch()
  local group = vim.api.nvim_create_augroup("peft-daemon", {})
  local function on(events, callback)
    vim.api.nvim_create_autocmd(events, { group = group, callback = callback })
  end
  on("TextChangedI", function()
    suggestion.follow()
    suggestion.ask_automatically()
  end)
  -- `A`, `o` and the like put the cursor where somebody wants to write.
  on("InsertEnter", function()
    vim.schedule(suggestion.ask_automatically)
  end)
  on("CursorMovedI", suggestion.follow)
  on({ "WinScrolled", "WinResized" }, suggestion.follow)
  -- While Neovim's own completion menu is open, its entries are shown and no ghost text.
  on({ "InsertLeave", "BufLeave", "WinLeave", "TextChangedP" }, suggestion.leave)
  on({ "LspAttach", "BufEnter", "CursorMoved" }, function()
    client.notify_position("peft-daemon/cursor")
  end)
  on({ "TextChanged", "TextChangedI", "InsertLeave" }, next_edit.follow_change)
  on({ "CursorMoved", "CursorMovedI", "WinScrolled", "WinResized" }, next_edit.follow)
  on("BufLeave", next_edit.hide)
  on("ColorScheme", function()
    ghost.define_highlights()
    next_edit.define_highlights()
  end)
  on("FileType", function(event)
    if vim.bo[event.buf].buftype == "" and not client.executable() then
      client.tell_once(client.missing())
    end
  end)
end

---Set the options; only needed for others than the defaults. May be called again.
---@param options? table see :help peft-daemon-options
function M.setup(options)
  config.set(options)
  if vim.fn.has("nvim-0.11") == 0 then
    client.tell_once("it needs Neovim 0.11 or later", vim.log.levels.ERROR)
    return
  end
  ghost.define_highlights()
  next_edit.define_highlights()
  if is_set_up then
    client.change_settings({})
  else
    watch()
  end
  is_set_up = true
  keys.map_requests()
  client.enable(suggestion.grow, suggestion.retry)
  if not client.executable() and vim.bo.buftype == "" and vim.bo.filetype ~= "" then
    client.tell_once(client.missing())
  end
end

---Set the defaults where nobody has called setup().
function M.setup_by_default()
  if not is_set_up then
    M.setup()
  end
end

M.accept = suggestion.accept
M.dismiss = suggestion.dismiss
M.next = suggestion.next
M.suggest = suggestion.suggest
M.is_shown = suggestion.is_shown
M.is_asking = suggestion.is_asking
M.visible = suggestion.visible
M.next_edit = next_edit.next
M.dismiss_next_edit = next_edit.dismiss
M.is_asking_next_edit = next_edit.is_asking
M.visible_next_edit = next_edit.visible

---Turn suggestions off in this Neovim, or on again. Asking by hand goes on.
function M.toggle()
  local on = config.options.settings.enabled == false
  suggestion.leave()
  client.change_settings({ enabled = on })
  vim.notify("peft-daemon: suggestions are " .. (on and "on" or "off"))
end

---Have code written for the comment or docstring at the cursor.
function M.generate()
  local line = vim.api.nvim_win_get_cursor(0)[1] - 1
  client.execute("peft-daemon.generate", { { uri = vim.uri_from_bufnr(0), line = line } })
end

---Say why there was a suggestion here, or none.
function M.why()
  client.execute("peft-daemon.why", { vim.uri_from_bufnr(0) }, function(answer)
    vim.notify(answer.text)
  end)
end

---Restart the daemon.
function M.restart()
  client.execute("peft-daemon.restart", {}, function()
    vim.notify("peft-daemon: the daemon serves again")
  end)
end

---The state in a few characters, for a status line; empty where peft-daemon does not run.
---@return string
function M.statusline()
  local buffer = vim.api.nvim_get_current_buf()
  local status = client.status(buffer)
  if not status then
    return ""
  end
  local state = client.why_off(buffer) and "off" or status.state
  local adapter = status.adapter
  local named = type(adapter) == "string" and adapter ~= "" and state ~= "off"
  return "peft-daemon: " .. state .. (named and (" (" .. adapter .. ")") or "")
end

return M
