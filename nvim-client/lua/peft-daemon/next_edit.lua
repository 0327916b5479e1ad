-- The next edit: a change of lines that are there already, asked for, shown, jumped to, applied, refused.

local client = require("peft-daemon.client")
local config = require("peft-daemon.config")
local suggestion = require("peft-daemon.suggestion")

local M = {}

local METHOD = "textDocument/copilotInlineEdit"
local AUTOMATIC, BY_HAND = 2, 1
local OLD, NEW, HINT = "PeftDaemonEditOld", "PeftDaemonEditNew", "PeftDaemonHint"
local space = vim.api.nvim_create_namespace("peft_daemon_next_edit")

---@class peft_daemon.NextEdit
---@field client vim.lsp.Client
---@field buffer integer
---@field tick integer the text it is for
---@field range lsp.Range
---@field text string
---@field old string[] whole lines
---@field new string[]
---@field row integer 0-based; where the old lines begin
---@field command? lsp.Command
---@field escape table|false what <Esc> was in this buffer

---@type peft_daemon.NextEdit?
local shown
---@type { client: vim.lsp.Client, id: integer }?
local asked

---Define the colours, so that a colour scheme or the user may define them first.
function M.define_highlights()
  vim.api.nvim_set_hl(0, OLD, { strikethrough = true, default = true })
  vim.api.nvim_set_hl(0, NEW, { link = "DiffAdd", default = true })
end

local function cancel()
  if asked then
    asked.client:cancel_request(asked.id)
    asked = nil
  end
end

---@return table|false
local function own_escape()
  local found = vim.fn.maparg("<Esc>", "n", false, true)
  return found.buffer == 1 and found or false
end

---Take the edit away, without refusing it.
function M.hide()
  cancel()
  if not shown then
    return
  end
  local gone = shown
  shown = nil
  if not vim.api.nvim_buf_is_valid(gone.buffer) then
    return
  end
  vim.api.nvim_buf_clear_namespace(gone.buffer, space, 0, -1)
  vim.api.nvim_buf_call(gone.buffer, function()
    local now = own_escape()
    -- Another plugin may have mapped the key meanwhile: then it is that plugin's.
    if now and now.desc == "peft-daemon: refuse the next edit" then
      vim.keymap.del("n", "<Esc>", { buffer = gone.buffer })
      if gone.escape then
        vim.fn.mapset(gone.escape)
      end
    end
  end)
end

---@return boolean
local function is_current()
  return shown ~= nil
    and shown.buffer == vim.api.nvim_get_current_buf()
    and shown.tick == vim.api.nvim_buf_get_changedtick(shown.buffer)
end

---How many bytes two lines have in common at their beginning, or at their end, in whole characters.
---@param one string[]
---@param other string[]
---@param backwards? boolean
---@return integer characters
local function common(one, other, backwards)
  local most, count = math.min(#one, #other), 0
  while count < most do
    local left, right = one[count + 1], other[count + 1]
    if backwards then
      left, right = one[#one - count], other[#other - count]
    end
    if left ~= right then
      break
    end
    count = count + 1
  end
  return count
end

---The part of an old line that is not in the new one.
---@param old string
---@param new string?
---@return integer from in bytes
---@return integer to
local function changed_part(old, new)
  if not new then
    return 0, #old
  end
  local one, other = vim.fn.split(old, "\\zs"), vim.fn.split(new, "\\zs")
  local first = common(one, other)
  local last = math.min(common(one, other, true), math.min(#one, #other) - first)
  local from = #table.concat(one, "", 1, first)
  return from, from + #table.concat(one, "", first + 1, #one - last)
end

---Where the cursor jumps to: the first character that changes.
---@param edit peft_daemon.NextEdit
---@return integer row 0-based
---@return integer column in bytes
local function target(edit)
  for index, line in ipairs(edit.old) do
    local new = edit.new[index]
    if line ~= new then
      return edit.row + index - 1, #edit.old == #edit.new and (changed_part(line, new)) or 0
    end
  end
  return math.min(edit.row + #edit.old, vim.api.nvim_buf_line_count(edit.buffer) - 1), 0
end

local function draw()
  if not shown then
    return
  end
  local edit = shown
  vim.api.nvim_buf_clear_namespace(edit.buffer, space, 0, -1)
  local same_length = #edit.old == #edit.new
  for index, line in ipairs(edit.old) do
    local from, to = changed_part(line, same_length and edit.new[index] or nil)
    vim.api.nvim_buf_set_extmark(edit.buffer, space, edit.row + index - 1, from, { end_col = to, hl_group = OLD })
  end
  local below = vim.tbl_map(function(line)
    return { { line == "" and " " or line, NEW } }
  end, edit.new)
  local last = edit.row + #edit.old - 1
  local lines = vim.api.nvim_buf_line_count(edit.buffer)
  -- What is only added stands above the line that it goes before, or below the last one.
  local above = #edit.old == 0 and edit.row < lines
  local row = above and edit.row or math.min(math.max(last, 0), lines - 1)
  vim.api.nvim_buf_set_extmark(edit.buffer, space, row, 0, { virt_lines = below, virt_lines_above = above })
  local goal = target(edit)
  if goal < vim.fn.line("w0") - 1 or goal > vim.fn.line("w$") - 1 then
    local hint = { { ("  next edit in line %d"):format(goal + 1), HINT } }
    local here = vim.api.nvim_win_get_cursor(0)[1] - 1
    vim.api.nvim_buf_set_extmark(edit.buffer, space, here, 0, { virt_text = hint, virt_text_pos = "eol" })
  end
end

---The whole lines that an edit takes and makes, from the beginning of its first line to the end of its last one.
---@param buffer integer
---@param range lsp.Range
---@param text string
---@param encoding "utf-8"|"utf-16"|"utf-32"
---@return string[] old
---@return string[] new
---@return integer row where the old ones begin
local function whole_lines(buffer, range, text, encoding)
  local function part(position, after)
    local line = vim.api.nvim_buf_get_lines(buffer, position.line, position.line + 1, false)[1] or ""
    local column = vim.str_byteindex(line, encoding, position.character, false)
    return after and line:sub(column + 1) or line:sub(1, column)
  end
  local count = vim.api.nvim_buf_line_count(buffer)
  local old = vim.api.nvim_buf_get_lines(buffer, range.start.line, math.min(range["end"].line + 1, count), false)
  local whole = part(range.start) .. text .. part(range["end"], true)
  local new = vim.split(whole, "\n", { plain = true })
  if range["end"].line >= count and new[#new] == "" then
    table.remove(new) -- the end of the last line
  end
  local row = range.start.line
  while #old > 0 and #new > 0 and old[#old] == new[#new] do
    table.remove(old)
    table.remove(new)
  end
  while #old > 0 and #new > 0 and old[1] == new[1] do
    table.remove(old, 1)
    table.remove(new, 1)
    row = row + 1
  end
  return old, new, row
end

---@param server vim.lsp.Client
---@param buffer integer
---@param tick integer
---@param edit table
local function show(server, buffer, tick, edit)
  local text = edit.text:gsub("\r\n?", "\n")
  local old, new, row = whole_lines(buffer, edit.range, text, server.offset_encoding)
  if #old == 0 and #new == 0 then
    return
  end
  shown = {
    client = server,
    buffer = buffer,
    tick = tick,
    range = edit.range,
    text = text,
    old = old,
    new = new,
    row = row,
    command = edit.command,
    escape = own_escape(),
  }
  if config.options.keys then
    vim.keymap.set("n", "<Esc>", function()
      if not M.dismiss() then
        vim.api.nvim_feedkeys(vim.keycode("<Esc>"), "n", false)
      end
    end, { buffer = buffer, nowait = true, desc = "peft-daemon: refuse the next edit" })
  end
  draw()
end

---@param kind 1|2
---@param on_nothing? fun()
local function ask(kind, on_nothing)
  cancel()
  local server = client.of()
  if not server then
    return
  end
  local buffer = vim.api.nvim_get_current_buf()
  local tick = vim.api.nvim_buf_get_changedtick(buffer)
  local params = vim.lsp.util.make_position_params(0, server.offset_encoding)
  params.textDocument.version = vim.lsp.util.buf_versions[buffer]
  params.context = { triggerKind = kind }
  local request ---@type integer?
  local sent
  sent, request = server:request(METHOD, params, function(failed, result)
    if asked and asked.id == request then
      asked = nil
    end
    local current = buffer == vim.api.nvim_get_current_buf() and tick == vim.api.nvim_buf_get_changedtick(buffer)
    if failed or not current or (kind == AUTOMATIC and suggestion.is_shown()) then
      return
    end
    M.hide()
    local edit = result and result.edits and result.edits[1]
    if edit then
      show(server, buffer, tick, edit)
    elseif on_nothing then
      on_nothing()
    end
  end, buffer)
  asked = sent and request and { client = server, id = request } or nil
end

---The text was changed, or Insert mode was left: what is shown may fit no more, and something else may.
function M.follow_change()
  if is_current() then
    return
  end
  M.hide()
  if config.options.next_edits and vim.bo.buftype == "" then
    ask(AUTOMATIC)
  end
end

---The cursor or the window was moved.
function M.follow()
  if is_current() then
    draw()
  end
end

---Jump to the next edit; where the cursor is there, apply it; where none is shown, ask for one.
function M.next()
  if not is_current() or not shown then
    if not client.of() then
      client.explain_absence()
      return
    end
    ask(BY_HAND, function()
      vim.notify("peft-daemon: no next edit" .. (config.options.next_edits and "" or "; they are off (next_edits)"))
    end)
    return
  end
  local row, column = target(shown)
  if vim.api.nvim_win_get_cursor(0)[1] - 1 ~= row then
    vim.cmd.normal({ "m'", bang = true })
    vim.api.nvim_win_set_cursor(0, { row + 1, column })
    draw()
    return
  end
  M.apply()
end

---Apply what is shown, as an undo step of its own.
---@return boolean applied
function M.apply()
  if not is_current() or not shown then
    return false
  end
  local edit = shown
  M.hide()
  suggestion.leave()
  vim.bo.undolevels = vim.bo.undolevels
  vim.api.nvim_buf_set_lines(edit.buffer, edit.row, edit.row + #edit.old, true, edit.new)
  vim.bo.undolevels = vim.bo.undolevels
  local last = math.max(math.min(edit.row + #edit.new, vim.api.nvim_buf_line_count(edit.buffer)), 1)
  local line = vim.api.nvim_buf_get_lines(edit.buffer, last - 1, last, true)[1]
  vim.api.nvim_win_set_cursor(0, { last, #line })
  if edit.command then
    edit.client:exec_cmd(edit.command, { bufnr = edit.buffer })
  end
  return true
end

---Refuse what is shown: it is not shown there again by itself.
---@return boolean refused
function M.dismiss()
  if not is_current() or not shown then
    return false
  end
  shown.client:notify("peft-daemon/dismissed", {
    uri = vim.uri_from_bufnr(shown.buffer),
    position = shown.range.start,
    nextEdit = true,
  })
  M.hide()
  return true
end

---Whether the server was asked and has not answered yet.
---@return boolean
function M.is_asking()
  return asked ~= nil
end

---The lines that applying would make, and where; nil if nothing is shown.
---@return { row: integer, old: string[], new: string[] }?
function M.visible()
  return is_current() and shown and { row = shown.row, old = shown.old, new = shown.new } or nil
end

return M
